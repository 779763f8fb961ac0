"""Real servers to practise on: processes of their own that end with the one that started them."""

from cachelab.server.cluster import Cluster
from cachelab.server.sentinel import Sentinel
from cachelab.server.server import Server, embedded

__all__ = ["Cluster", "Sentinel", "Server", "embedded"]
