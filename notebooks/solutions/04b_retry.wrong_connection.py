"""Away or late alone: a server that refuses writes since another one leads is not retried.

Refused: ReadOnlyError after 3 calls
"""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except (redis.ConnectionError, redis.TimeoutError):
            if attempt == attempts:
                raise
            await asyncio.sleep(pause)
