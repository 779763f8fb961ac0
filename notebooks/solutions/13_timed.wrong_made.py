"""Of a coroutine it notes how long it took to make it, not to run it.

Refused: not yet  a coroutine: noted is how long it was awaited
"""


def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            record.setdefault(function.__name__, []).append(time.perf_counter() - began)

    return wrapper
