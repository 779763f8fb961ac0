"""It pauses after the last failure too: the caller waits, and no attempt follows.

Refused: not yet  no pause follows the last attempt
"""


async def retry(call, attempts=3, pause=0.1):
    for _ in range(attempts):
        try:
            return await call()
        except redis.RedisError as error:
            last = error
            await asyncio.sleep(pause)
    raise last
