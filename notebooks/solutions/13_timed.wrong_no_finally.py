"""A call that raises is not noted.

Refused: not yet  what raises is noted, and raises (0 times noted for 1 calls of fails)
"""


def timed(function):
    def note(began):
        record.setdefault(function.__name__, []).append(time.perf_counter() - began)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        result = function(*args, **kwargs)
        note(began)
        return result

    @functools.wraps(function)
    async def async_wrapper(*args, **kwargs):
        began = time.perf_counter()
        result = await function(*args, **kwargs)
        note(began)
        return result

    return async_wrapper if iscoroutinefunction(function) else wrapper
