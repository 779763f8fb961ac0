"""What a client is: which kinds a cache and a seeder take, whether `connect` made it, its pools."""

from collections.abc import Iterator
from typing import Any, Literal

import redis
import redis.asyncio
from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.client import Pipeline

from cachelab.clients.cluster import Cluster
from cachelab.clients.cluster_async import AsyncCluster
from cachelab.clients.deadlines import Pool
from cachelab.clients.deadlines_async import LoopPool, PoolPerLoop

_KINDS = {
    "sync": (redis.Redis, redis.RedisCluster),
    "async": (redis.asyncio.Redis, redis.asyncio.RedisCluster),
}
_PIPELINES = (
    *(Pipeline, redis.cluster.ClusterPipeline),
    *(AsyncPipeline, redis.asyncio.cluster.ClusterPipeline),
)


def check_client(client: object, kind: Literal["sync", "async"], maker: str) -> None:
    """Refuse what is no client of a kind, or one that answers from a store of its own.

    Args:
        client: What was handed in.
        kind: "sync" for redis.Redis and redis.RedisCluster, "async" for their asyncio twins.
        maker: The function that makes the right one, for the message.

    Raises:
        TypeError: client is of another kind, or a pipeline, which only queues commands.
        ValueError: client has client-side caching: it would go on giving what was invalidated; or
            it is led to a replica, which takes no lease and no value.
    """
    name = f"{type(client).__module__}.{type(client).__name__}"
    if isinstance(client, _PIPELINES):
        raise TypeError(
            f"client must be what {maker}() returns, not a pipeline of it ({name}), "
            "which queues commands instead of answering them"
        )
    if not isinstance(client, _KINDS[kind]):
        rights = " or ".join(f"{right.__module__}.{right.__name__}" for right in _KINDS[kind])
        raise TypeError(f"client must be what {maker}() returns, a {rights}, not a {name}")
    sentinels = getattr(getattr(client, "connection_pool", None), "sentinels", None)
    if sentinels is not None and sentinels.replica:
        raise ValueError("client must reach the primary: leave replica=yes out of its URL")
    if any(getattr(pool, "cache", None) is not None for pool in _pools(client)):
        raise ValueError(
            f"client must not cache on its own side: make it without cache_config, or by {maker}()"
        )


def is_ours(client: object) -> bool:
    """Tell whether the client's connections were made by `connect` or `connect_async`.

    Such a client may be called from a signal handler or a finaliser that interrupts its own call.
    """
    pool = getattr(client, "connection_pool", None)
    return isinstance(pool, (Pool, PoolPerLoop)) or isinstance(client, (Cluster, AsyncCluster))


def drop_connections(client: Any) -> None:
    """Let each call that begins from now on open a new connection; calls under way may finish.

    For a server that answers READONLY: it was demoted, and its address may lead to another now.
    Nothing is closed here, so this is the same plain call for an asyncio client. redis-py's mark,
    for a client that neither `connect` nor `connect_async` made, lets one more call pass.
    """
    for pool in _pools(client):
        if isinstance(pool, (Pool, PoolPerLoop, LoopPool)):
            pool.drop()
        else:
            for connection in _connections(pool):
                connection.mark_for_reconnect()


drop_connections_async = drop_connections


def _pools(client: Any) -> Iterator[Any]:
    """Yield the client's pool; of a cluster each node's, which for asyncio is the node itself."""
    if isinstance(client, redis.RedisCluster):
        for node in client.get_nodes():  # type: ignore[no-untyped-call]
            if node.redis_connection is not None:
                yield node.redis_connection.connection_pool
    elif isinstance(client, redis.asyncio.RedisCluster):
        yield from (getattr(node, "pool", node) for node in client.get_nodes())
    else:
        yield client.connection_pool


def _connections(pool: Any) -> list[Any]:
    """Return the connections of a pool of redis-py's; each kind of pool keeps them elsewhere."""
    if hasattr(pool, "_connections"):
        return list(pool._connections)
    return [*pool._available_connections, *pool._in_use_connections]
