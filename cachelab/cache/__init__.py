"""The cache-aside and the parts that it is made of."""

from cachelab.cache.aside import AsyncCacheAside, CacheAside, Stats

__all__ = ["AsyncCacheAside", "CacheAside", "Stats"]
