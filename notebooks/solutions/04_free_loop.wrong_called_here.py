"""The call is made before `to_thread` is: it blocks the loop, and its value is handed to a thread.

Refused: TypeError: 'str' object is not callable
"""


async def profile(get, user_id):
    return {"id": user_id, "name": await asyncio.to_thread(get(user_id))}
