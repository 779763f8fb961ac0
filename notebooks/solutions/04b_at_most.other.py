"""As many workers as the limit, which take the next id from a shared iterator."""


async def read_all(read, ids, limit):
    todo = list(enumerate(ids))
    answers = [None] * len(todo)
    left = iter(todo)

    async def worker():
        for place, user_id in left:
            answers[place] = await read(user_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(worker())
    return answers
