"""One context manager that notes, around a call and around an await."""

from contextlib import contextmanager


@contextmanager
def noting(name):
    began = time.perf_counter()
    try:
        yield
    finally:
        record.setdefault(name, []).append(time.perf_counter() - began)


def timed(function):
    if iscoroutinefunction(function):

        async def wrapper(*args, **kwargs):
            with noting(function.__name__):
                return await function(*args, **kwargs)

    else:

        def wrapper(*args, **kwargs):
            with noting(function.__name__):
                return function(*args, **kwargs)

    return functools.wraps(function)(wrapper)
