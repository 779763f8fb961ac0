"""What the demo is told: where its data are, where browsers find it, how slow its database is."""

import ipaddress
import json
import re
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from cachelab import _check
from cachelab._secret import Secret
from cachelab._urls import address

VARIABLE = "CACHELAB_DEMO"  # by which worker processes get theirs
PORT = 8868
# No user, no path, no "*", which would let any host in.
ADDRESSES = re.compile(r"https?://([a-z\d.-]+|\[[a-f\d:]+\])(:\d{1,5})?/?", re.ASCII | re.I)


@dataclass(frozen=True)
class Settings:
    """What the demo is told.

    Attributes:
        redis_url: One server, one behind Sentinels, or a cluster.
        database_url: SQLite or PostgreSQL, as `UserDatabase.url` gives it.
        url: Where browsers find it. With https:// its cookie is `Secure`; a plain http:// is for
            this machine alone, where some browsers would refuse such a cookie.
        has_server: Whether the demo has started the Redis server, and so may kill it.
        latency: Seconds that the database takes for an answer.
        slow: Seconds that it takes when it is made slow.
        ttl: Seconds that what is cached lives.
        prefix: What every key starts with.
        timeout: Seconds that Redis may take for a reply.

    Raises:
        TypeError: A value is of the wrong kind.
        ValueError: A value breaks its rule; a URL with a password is never shown.
    """

    redis_url: str
    database_url: str
    url: str = f"http://127.0.0.1:{PORT}"
    has_server: bool = False
    latency: float = 0.02
    slow: float = 0.5
    ttl: float = 15.0
    prefix: str = "cachelab:demo:"
    timeout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("redis_url", "database_url"):
            object.__setattr__(self, name, Secret(getattr(self, name)))
        if not ADDRESSES.fullmatch(_check.text("url", self.url)):
            shown = address(self.url)
            raise ValueError(f"url must be http://host:port or https://host, not {shown!r}")
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError(
                f"url must begin with https:// for others than this machine, not {self.url!r}: "
                "put a server that speaks TLS in front"
            )
        for name in ("latency", "slow"):
            _check.wait(name, getattr(self, name))
        _check.milliseconds("ttl", self.ttl)

    @property
    def is_https(self) -> bool:
        """Whether browsers reach it by TLS."""
        return self.url.startswith("https:")

    @property
    def cookie(self) -> str:
        """The name of its cookie; `__Host-` has a browser refuse one that another host has set.

        Else it has the port, which browsers do not tell apart: two demos do not log each other out.
        """
        if self.is_https:
            return "__Host-session"
        port = re.search(r":(\d+)/?$", self.url)
        return f"session-{port[1]}" if port else "session"

    @property
    def hosts(self) -> list[str]:
        """The names by which it may be asked for; another is that of a page that rebinds DNS."""
        return [urlsplit(self.url).hostname or "", "localhost", "127.0.0.1", "[::1]", "::1"]

    def text(self) -> str:
        """Return it as text, passwords included, for the environment of a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Settings":
        """Return the settings that a text holds."""
        return cls(**json.loads(text))


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine reaches what listens on ``host``.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be anybody's
        return False
