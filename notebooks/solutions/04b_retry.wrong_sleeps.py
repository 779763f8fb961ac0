"""The pause holds the loop: no limit and no neighbour gets a turn.

Refused: not yet  a limit ends it in its pause
"""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except redis.RedisError:
            if attempt == attempts:
                raise
            time.sleep(pause)
