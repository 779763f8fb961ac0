"""It notes a call that raises, and keeps the error to itself.

Refused: not yet  what raises is noted, and raises (the caller does not see the error)
"""


def timed(function):
    def note(began):
        record.setdefault(function.__name__, []).append(time.perf_counter() - began)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        except Exception:
            return None
        finally:
            note(began)

    @functools.wraps(function)
    async def async_wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        except Exception:
            return None
        finally:
            note(began)

    return async_wrapper if iscoroutinefunction(function) else wrapper
