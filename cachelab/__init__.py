"""Caching with Redis from Python: a client, a seeder and a cache-aside that holds.

The servers to practise on and the database are here too, by their extras: they are imported when
they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cachelab import _extras
from cachelab._extras import MissingExtra
from cachelab.cache import AsyncCacheAside, CacheAside, Stats
from cachelab.clients import connect, connect_async, server_url
from cachelab.errors import (
    CachelabError,
    InvalidationPending,
    LoadsBusy,
    RecursiveLoad,
    RedisUnavailable,
    SeedError,
    ServerError,
    ServiceDown,
    WritesFull,
    WriteUncertain,
)
from cachelab.seeder import SeedReport, seed, seed_async
from cachelab.users import generate_users

if TYPE_CHECKING:
    from cachelab.database import UserDatabase
    from cachelab.server import Cluster, Sentinel, Server

__all__ = [
    "AsyncCacheAside",
    "CacheAside",
    "CachelabError",
    "Cluster",
    "InvalidationPending",
    "LoadsBusy",
    "MissingExtra",
    "RecursiveLoad",
    "RedisUnavailable",
    "SeedError",
    "SeedReport",
    "Sentinel",
    "Server",
    "ServerError",
    "ServiceDown",
    "Stats",
    "UserDatabase",
    "WriteUncertain",
    "WritesFull",
    "connect",
    "connect_async",
    "generate_users",
    "seed",
    "seed_async",
    "server_url",
]

_LAZY = {  # name to the module that it stands in, and the extra that it needs
    "Cluster": ("cachelab.server", "server"),
    "Sentinel": ("cachelab.server", "server"),
    "Server": ("cachelab.server", "server"),
    "UserDatabase": ("cachelab.database", "database"),
}

if not TYPE_CHECKING:  # a type checker would take any name of a module that has __getattr__

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, extra = _LAZY[name]
        _extras.need(f"cachelab.{name}", extra)
        return globals().setdefault(name, getattr(import_module(module), name))

    def __dir__() -> list[str]:
        installed = [name for name, (_, extra) in _LAZY.items() if not _extras.missing(extra)]
        return sorted({*globals(), *installed})
