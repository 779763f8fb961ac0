"""`except Exception`: a slip of the pen is tried three times.

Refused: not yet  a slip reaches us at once
"""


async def retry(call, attempts=3, pause=0.1):
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except Exception:
            if attempt == attempts:
                raise
            await asyncio.sleep(pause)
