"""What the past tells a cache: what to load before it is asked for, and for how long to keep it."""

from cachelab.smart.expiry import AdaptiveTTL, ExpiryStats
from cachelab.smart.popularity import LogStats, PopularityLog, Warmed, warm, warm_async
from cachelab.smart.prefetch import (
    AsyncPrefetcher,
    Ledger,
    Markov,
    Predictor,
    Prefetcher,
    PrefetchStats,
)

__all__ = [
    "AdaptiveTTL",
    "AsyncPrefetcher",
    "ExpiryStats",
    "Ledger",
    "LogStats",
    "Markov",
    "PopularityLog",
    "Predictor",
    "PrefetchStats",
    "Prefetcher",
    "Warmed",
    "warm",
    "warm_async",
]
