"""What may be said of an embedded server's configuration, and what it begins with."""

import numbers
import re

from cachelab import _check

DEFAULTS = {"maxmemory": "256mb", "maxmemory_policy": "noeviction", "save": "", "appendonly": "no"}
# Where it listens, who may enter, where it writes, whose child it is: its promises rest on these.
RESERVED = frozenset(
    "aclfile bind bind-source-addr cluster-config-file daemonize dir include loadmodule logfile "
    "pidfile port protected-mode rename-command requirepass supervised syslog-enabled tls-port "
    "unixsocket unixsocketgroup unixsocketperm user".split()
)

# What a set of servers needs besides to be one, and what would let its nodes be found elsewhere.
SET_BY_SETS = frozenset(
    "cluster_enabled cluster_node_timeout cluster_announce_bus_port cluster_announce_hostname "
    "cluster_announce_ip cluster_announce_port cluster_port cluster_preferred_endpoint_type "
    "masterauth masteruser primaryauth primaryuser replica_announce_ip replica_announce_port "
    "replicaof slave_announce_ip slave_announce_port slaveof".split()
)


def directive(name: str, value: object) -> str:
    """Return one line of configuration that holds this directive and no other.

    >>> directive("maxmemory_policy", "allkeys-lru"), directive("save", "")
    ('maxmemory-policy allkeys-lru', 'save ""')
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        rule = "configuration names are lower-case letters, digits and underscores"
        raise ValueError(f"{rule}, not {name!r}")
    dashed = name.replace("_", "-")
    if dashed in RESERVED:
        kept = "the server's port, password, address and files are its own"
        raise ValueError(f"{name} is not configurable: {kept}")
    text = _text(name, value)
    if len(text) > 512 or not text.isprintable() or set(text) & set("\"'\\"):
        rule = "one line of at most 512 characters without quotes"
        raise ValueError(f"{name} must be {rule}, not {text[:40]!r}")
    return f"{dashed} " + (text.strip() or '""')


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return str(_check.whole(name, value, least=-(2**63), most=2**64))
    if not isinstance(value, str):
        kind = type(value).__name__
        raise TypeError(f"{name} must be text, a whole number or a bool, not {value!r} ({kind})")
    return _check.text(name, value)
