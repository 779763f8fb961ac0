"""Python's own errors of the same names are caught as well: they are not of Redis.

Refused: not yet  so does a late file
"""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except (redis.RedisError, OSError):
            if attempt == attempts:
                raise
            await asyncio.sleep(pause)
