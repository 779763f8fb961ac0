"""All attempts but the last in a loop, the last one unguarded."""


async def retry(call, attempts=3, pause=0.1):
    while attempts > 1:
        try:
            return await call()
        except redis.RedisError:
            attempts -= 1
        await asyncio.sleep(pause)
    return await call()
