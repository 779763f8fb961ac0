"""Nobody awaits the thread: the name is a future, not a name.

Refused: it returned {'id': 'user-1', 'name': <Future
"""


async def profile(get, user_id):
    return {"id": user_id, "name": asyncio.get_running_loop().run_in_executor(None, get, user_id)}
