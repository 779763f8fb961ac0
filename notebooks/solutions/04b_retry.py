"""Retry the errors of Redis alone, leave the loop free in the pause, let the last error go on."""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except redis.RedisError:
            if attempt == attempts:
                raise
            await asyncio.sleep(pause)
