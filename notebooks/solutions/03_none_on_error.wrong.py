"""`except Exception` around all of it: a load that fails is made twice.

Refused: ZeroDivisionError, 2 loads
"""


def safe(client, load, user_id):
    try:
        return get_user(client, load, user_id)
    except Exception:
        return load(user_id)
