"""Caching with Redis from Python: one client, a server to practise on, a seeder and a cache-aside that holds."""

from cachelab.errors import CachelabError, RedisUnavailable, SeedError, ServerError

__all__ = ["CachelabError", "RedisUnavailable", "SeedError", "ServerError"]
