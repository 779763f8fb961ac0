"""Caching with Redis from Python: one client, a server to practise on, a seeder and a cache-aside that holds."""

from cachelab.aside import AsyncCacheAside, CacheAside, Stats
from cachelab.client import connect, connect_async, server_url
from cachelab.database import UserDatabase
from cachelab.errors import CachelabError, InvalidationPending, RedisUnavailable, SeedError, ServerError
from cachelab.seeder import SeedReport, generate_users, seed, seed_async
from cachelab.server import Server

__all__ = [
    "AsyncCacheAside",
    "CacheAside",
    "CachelabError",
    "InvalidationPending",
    "RedisUnavailable",
    "SeedError",
    "SeedReport",
    "Server",
    "ServerError",
    "Stats",
    "UserDatabase",
    "connect",
    "connect_async",
    "generate_users",
    "seed",
    "seed_async",
    "server_url",
]
