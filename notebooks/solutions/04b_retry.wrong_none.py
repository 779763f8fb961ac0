"""After the last failure it ends without a word: the caller gets None.

Refused: None after 3 calls
"""


async def retry(call, attempts=3, pause=0.1):
    for _ in range(attempts):
        try:
            return await call()
        except redis.RedisError:
            await asyncio.sleep(pause)
