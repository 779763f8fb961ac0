"""It takes a cancellation for a failure, and calls again.

Refused: not yet  a limit ends it in its call
"""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except (redis.RedisError, asyncio.CancelledError):
            if attempt == attempts:
                raise
            await asyncio.sleep(pause)
