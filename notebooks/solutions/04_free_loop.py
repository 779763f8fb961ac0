"""The blocking call waits in a thread, and the coroutine awaits the thread."""


async def profile(get, user_id):
    return {"id": user_id, "name": await asyncio.to_thread(get, user_id)}
