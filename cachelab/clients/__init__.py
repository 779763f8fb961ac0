"""From a URL to a client: shared, with short timeouts, a pool that queues, calls that end in time.

The room is not called connect: the package would then hide the function of that name.
"""

from cachelab._urls import address
from cachelab.clients.client import connect, connect_async, ping, server_url
from cachelab.clients.failures import Away, foreign
from cachelab.clients.kinds import check_client, drop_connections, drop_connections_async, is_ours
from cachelab.clients.replies import WrongKind
from cachelab.clients.sentinel import UnknownService

__all__ = [
    "Away",
    "UnknownService",
    "WrongKind",
    "address",
    "check_client",
    "connect",
    "connect_async",
    "drop_connections",
    "drop_connections_async",
    "foreign",
    "is_ours",
    "ping",
    "server_url",
]
