"""The arguments of a cache, checked before anything happens."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cachelab import _check

MOST_LOADS = 100_000  # more threads than that nobody has
LEASE_KEPT = 600.0  # seconds that a lease stays, the same for all caches


@dataclass(frozen=True)
class Settings:
    """What a cache was made with; the classes in `cachelab.cache.aside` say what each means."""

    load: Callable[[str], Any]
    load_many: Callable[[list[str]], Any] | None
    ttl: float
    jitter: float
    missing_ttl: float | None
    prefix: str
    lease: float
    max_loads: int
    max_wait: float
    max_value_bytes: int
    grace: float = 0.0  # of `cachelab.writes.RefreshAhead` alone
    expiry: Callable[[str, str], float] | None = None

    @property
    def longest(self) -> float:
        """Seconds after which nothing that was cached or leased before is there any more."""
        return max(self.ttl, self.missing_ttl or 0) + self.grace + LEASE_KEPT


def checked(
    *,
    load: Callable[[str], Any],
    load_many: Callable[[list[str]], Any] | None,
    ttl: float,
    jitter: float,
    missing_ttl: float | None,
    prefix: str,
    lease: float,
    max_loads: int,
    max_wait: float,
    max_value_bytes: int,
    grace: float | None = None,
    expiry: Callable[[str, str], float] | None = None,
) -> Settings:
    """Return the settings; TypeError or ValueError name the argument, its value and the rule."""
    for name, function in (("load", load), ("load_many", load_many)):
        if not callable(function) and (function is not None or name == "load"):
            raise TypeError(f"{name} must be a function, not {function!r}")
    called = (expiry, getattr(type(expiry), "__call__", None))  # noqa: B004
    if expiry is not None and (
        not callable(expiry) or any(map(inspect.iscoroutinefunction, called))
    ):
        raise TypeError(f"expiry must be a plain function, not {expiry!r}")
    return Settings(
        load=load,
        load_many=load_many,
        ttl=_check.number("ttl", ttl, above=0),
        jitter=_check.number("jitter", jitter, low=0, high=1),
        missing_ttl=(
            None if missing_ttl is None else _check.number("missing_ttl", missing_ttl, above=0)
        ),
        prefix=_check.text("prefix", prefix),
        lease=_check.number("lease", lease, above=0, high=LEASE_KEPT),
        max_loads=_check.whole("max_loads", max_loads, least=1, most=MOST_LOADS),
        max_wait=_check.number("max_wait", max_wait, above=0, high=_check.LONGEST_WAIT),
        max_value_bytes=_check.whole("max_value_bytes", max_value_bytes, least=1),
        grace=0.0 if grace is None else _check.number("grace", grace, above=0),
        expiry=expiry,
    )


def refuse_coroutine_functions(settings: Settings) -> None:
    """Raise TypeError where a load would have to be awaited."""
    for name, function in (("load", settings.load), ("load_many", settings.load_many)):
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{name} must be a plain function: AsyncCacheAside is the cache that awaits "
                f"{function!r}"
            )
