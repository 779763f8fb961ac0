"""It awaits whatever the function returns, as the common recipe does.

Refused: not yet  a function: each call is noted
"""


def timed(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        finally:
            record.setdefault(function.__name__, []).append(time.perf_counter() - began)

    return wrapper
