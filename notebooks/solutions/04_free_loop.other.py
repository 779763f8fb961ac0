"""The pool of the loop by its older name, which `to_thread` is made of."""


async def profile(get, user_id):
    name = await asyncio.get_running_loop().run_in_executor(None, get, user_id)
    return {"id": user_id, "name": name}
