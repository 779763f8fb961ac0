"""The read begins inside the door and is awaited outside.

Refused: 60 at once
"""


async def read_all(read, ids, limit):
    gate = asyncio.Semaphore(limit)

    async def gated(user_id):
        async with gate:
            task = asyncio.create_task(read(user_id))
        return await task

    return await asyncio.gather(*map(gated, ids))
