"""A yield before the call: the others have one turn, and then the call blocks them all the same.

Refused: not yet  the heart beats on
"""


async def profile(get, user_id):
    await asyncio.sleep(0)
    return {"id": user_id, "name": get(user_id)}
