"""One semaphore for all reads, made once, and the read inside its door."""


async def read_all(read, ids, limit):
    gate = asyncio.Semaphore(limit)

    async def gated(user_id):
        async with gate:
            return await read(user_id)

    return await asyncio.gather(*map(gated, ids))
