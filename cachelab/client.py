"""One shared client: where the server comes from, short timeouts, a pool that queues, errors that say the way out."""

import os
import queue
import socket
import threading
from urllib.parse import quote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.retry import Retry

from cachelab import _check
from cachelab.connections import ASYNC_BY_SCHEME, BY_SCHEME, QUEUE, PoolPerLoop, Queue
from cachelab.errors import RedisUnavailable

CONNECTIONS = 50  # per client; the fifty-first call waits for a connection instead of failing

_clients: dict[tuple, redis.Redis | redis.asyncio.Redis] = {}
_lock = threading.Lock()


def connect(url: str | None = None, check: bool = True, retries: int = 1, timeout: float = 0.2) -> redis.Redis:
    """Return the shared client of a server, the same object for the same arguments.

    url: redis://, rediss:// or unix://; None takes `server_url()`. check: send one PING first. retries: how often a call is
    sent again after a broken connection or a timeout, which makes calls at-least-once: count with ``retries=0``, or one INCR
    may count twice. timeout: seconds that a call waits for a connection, and for its reply beyond what the size of command
    and reply explains at 5 MB/s; a call with its retries ends within (1 + retries) times that.

    Texts come back as str (decode_responses). Up to 50 connections are open at once, further calls queue.
    Raises ValueError for a URL that names no server, RedisUnavailable (check=True) when the server does not answer.
    """
    url = _server(url)
    _check.whole("retries", retries, least=0)
    _check.number("timeout", timeout, above=0)
    with _lock:
        client = _clients.get((url, retries, timeout))
        if client is None:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                connection_class=BY_SCHEME[urlsplit(url).scheme],
                queue_class=Queue,
                retry=_Retry(ExponentialWithJitterBackoff(cap=timeout / 4, base=0.01), retries),
                **_settings(timeout),
            )
            client = _clients[url, retries, timeout] = redis.Redis(connection_pool=pool)
    if check:
        ping(client, url, timeout)
    return client


def connect_async(url: str | None = None, retries: int = 1, timeout: float = 0.2) -> redis.asyncio.Redis:
    """Return the shared asyncio client of a server: the twin of `connect`, a plain call that does no I/O.

    The client may be made at module level and used in one event loop after another: each loop gets connections of its own.
    """
    url = _server(url)
    _check.whole("retries", retries, least=0)
    _check.number("timeout", timeout, above=0)
    with _lock:
        client = _clients.get(("async", url, retries, timeout))
        if client is None:
            pool = PoolPerLoop.from_url(
                url,
                connection_class=ASYNC_BY_SCHEME[urlsplit(url).scheme],
                retry=_AsyncRetry(ExponentialWithJitterBackoff(cap=timeout / 4, base=0.01), retries),
                **_settings(timeout),
            )
            client = _clients["async", url, retries, timeout] = redis.asyncio.Redis(connection_pool=pool)
    return client


def server_url() -> str:
    """Return the URL of the server in use, credentials included: hand it to child processes, not to the screen.

    REDIS_URL if it is set; else REDIS_HOST, REDIS_PORT, REDIS_USERNAME and REDIS_PASSWORD if one of them is; else that of
    the embedded server, which starts at first use.
    """
    if url := os.environ.get("REDIS_URL"):
        return url
    host, port, user, password = (
        os.environ.get(f"REDIS_{name}", "") for name in ("HOST", "PORT", "USERNAME", "PASSWORD")
    )
    if host or port or user or password:
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        host = f"[{host}]" if ":" in host else host
        return f"redis://{credentials}{host or 'localhost'}:{port or 6379}"
    from cachelab.server import embedded

    return embedded().url


def address(url: str) -> str:
    """Return a URL without credentials and options, fit to be shown.

    >>> address("rediss://me:secret@cache.example:6380/2?ssl_cert_reqs=none")
    'rediss://cache.example:6380/2'
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def ping(client: redis.Redis, url: str, timeout: float = 0.2) -> None:
    """Send one PING; raise RedisUnavailable, which names the server, the cause and the way out."""
    try:
        _resolve(urlsplit(url).hostname, timeout)
        client.ping()
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"{address(url)} {_cause(url, error)}\n{_way_out()}") from None


def _server(url: str | None) -> str:
    """Return the URL to use, checked; the error shows what follows the last @ at most."""
    name = "url" if url is not None else "REDIS_URL"
    url = _check.text(name, server_url() if url is None else url)
    parts = urlsplit(url)
    if parts.scheme in ("redis-sentinel", "redis-cluster"):
        kind = parts.scheme.removeprefix("redis-")
        raise ValueError(f"{name}: {kind} URLs are not supported; give one server's address as redis://host:port")
    if parts.scheme not in BY_SCHEME or "://" not in url:
        raise ValueError(f"{name} must begin with redis://, rediss:// or unix://, not {parts.scheme or 'no scheme'!r}")
    if parts.scheme == "unix":
        return url
    try:
        if parts.port == 0:
            raise ValueError
        (parts.hostname or "").encode("idna")
        int(parts.path.strip("/") or 0)
    except ValueError:
        raise ValueError(
            f"{name} must read redis://user:password@host:port/database with a port of 1 to 65535, "
            f"special characters in the password written as %XX; it reads {address(url)}"
        ) from None
    return url


def _settings(timeout: float) -> dict:
    return {
        "decode_responses": True,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_connections": CONNECTIONS,
        "timeout": QUEUE,
        "driver_info": None,  # two round trips fewer for each new connection
    }


def _resolve(host: str | None, timeout: float) -> None:
    """Look a host name up, in a thread because the system's own time-out is many seconds; an address is none."""
    if not host or host == "localhost" or host.replace(".", "").isdigit() or ":" in host:
        return
    outcome: queue.SimpleQueue = queue.SimpleQueue()

    def look_up() -> None:
        try:
            outcome.put(socket.getaddrinfo(host, None))
        except OSError as error:
            outcome.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        found = outcome.get(timeout=2 * timeout)
    except queue.Empty:
        raise OSError(f"name {host} was not resolved within {2 * timeout:g} s") from None
    if isinstance(found, OSError):
        raise OSError(f"name {host} is not known") from None


def _cause(url: str, error: Exception) -> str:
    text = str(error)
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return "refuses the user name or password."
    if isinstance(error, redis.TimeoutError):
        secure = " It may not speak TLS: then the URL begins with redis://." if url.startswith("rediss") else ""
        return f"did not answer in time.{secure}"
    if "SSL" in text:
        return "does not speak TLS as asked for: the URL of a plain port begins with redis://."
    if "refused" in text:
        return "refuses connections: nothing listens there."
    return f"cannot be used: {text.rstrip('.')}."


def _way_out() -> str:
    if any(os.environ.get(f"REDIS_{name}") for name in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD")):
        return (
            "Start that server or correct REDIS_URL; `unset REDIS_URL REDIS_HOST REDIS_PORT` uses the embedded server."
        )
    return "`python -m cachelab doctor` shows what works; `python -m cachelab serve` keeps a server running."


def _is_retryable(error: Exception) -> bool:
    return not isinstance(error, (AuthenticationError, AuthorizationError))  # asking again does not mend a password


class _Retry(Retry):
    def call_with_retry(self, do, fail, is_retryable=None, with_failure_count=False):
        return super().call_with_retry(do, fail, _is_retryable, with_failure_count)


class _AsyncRetry(AsyncRetry):
    async def call_with_retry(self, do, fail, is_retryable=None, with_failure_count=False):
        return await super().call_with_retry(do, fail, _is_retryable, with_failure_count)
