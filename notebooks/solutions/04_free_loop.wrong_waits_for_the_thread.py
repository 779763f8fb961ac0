"""The call waits in a thread, and the loop waits for the thread without await.

Refused: not yet  the heart beats on
"""


async def profile(get, user_id):
    with ThreadPoolExecutor(1) as pool:
        return {"id": user_id, "name": pool.submit(get, user_id).result()}
