"""It keeps the last call alone: one sample.

Refused: not yet  a function: each call is noted (1 times noted for 2 calls of quick)
"""


def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            record[function.__name__] = [time.perf_counter() - began]

    @functools.wraps(function)
    async def async_wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        finally:
            record[function.__name__] = [time.perf_counter() - began]

    return async_wrapper if iscoroutinefunction(function) else wrapper
