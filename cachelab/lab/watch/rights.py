"""The least rights of a user that a cache logs in as, and what another user may look at."""

from cachelab import _check

# CacheAside sends these itself, and PING when it connects; the scripts of its leases send the rest.
CACHE = ("ping", "get", "mget", "getdel", "eval", "set", "del", "pttl", "pexpire")
# What `observe` and the doctor ask: no value can be read with them.
WATCH = (
    "ping", "info", "scan", "type", "pttl", "memory|usage", "object|idletime", "object|freq",
    "slowlog|get", "latency|histogram", "latency|latest",
)  # fmt: skip


def cache_rules(prefix: str) -> list[str]:
    """Return the ACL rules of a user that can do what `CacheAside` does under a prefix, no more.

    Put a password before them: ``client.execute_command("ACL SETUSER", "shop", "reset", "on",
    ">" + password, *cache_rules("cache:"))``.

    Args:
        prefix: Of the cache's keys; "" would be all keys, and is refused.

    Returns:
        Rules as ACL SETUSER takes them.

    >>> cache_rules("cache:")[:4]
    ['resetchannels', '~cache:*', '-@all', '+ping']
    """
    return [*_rules(_check.identity("prefix", prefix)), *(f"+{name}" for name in CACHE)]


def watch_rules(prefix: str = "") -> list[str]:
    """Return the ACL rules of a user that can look, by `observe`, and read or change nothing.

    Args:
        prefix: Of the keys whose weight and age it may ask for; SCAN shows it all names.

    Returns:
        Rules as ACL SETUSER takes them.
    """
    return [*_rules(_check.text("prefix", prefix)), *(f"+{name}" for name in WATCH)]


def _rules(prefix: str) -> list[str]:
    pattern = "".join(f"\\{one}" if one in "*?[]\\^" else one for one in prefix)
    return ["resetchannels", f"~{pattern}*", "-@all"]
