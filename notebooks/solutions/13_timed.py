"""Two wrappers, one of which awaits; both note in a finally."""


def timed(function):
    def note(began):
        record.setdefault(function.__name__, []).append(time.perf_counter() - began)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            note(began)

    @functools.wraps(function)
    async def async_wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        finally:
            note(began)

    return async_wrapper if iscoroutinefunction(function) else wrapper
