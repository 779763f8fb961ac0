"""One shared client: where the server comes from, short timeouts, errors that say the way out."""

import functools
import logging
import os
import re
import ssl
import sys
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import redis
import redis.asyncio
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, InvalidResponse, RedisError

from cachelab import _check, _locks
from cachelab._secret import Secret
from cachelab._urls import address, hide
from cachelab.clients import deadlines, deadlines_async
from cachelab.clients.cluster import Cluster
from cachelab.clients.cluster_async import AsyncCluster
from cachelab.clients.deadlines import QUEUE, Pool, Retry
from cachelab.clients.deadlines_async import AsyncRetry, Parser, PoolPerLoop
from cachelab.clients.failures import Away, chain, foreign
from cachelab.clients.lookup import UnknownHost
from cachelab.clients.options import ASYNC_OPTIONS, OPTIONS, read
from cachelab.clients.sentinel import SentinelPool, SentinelPoolPerLoop, behind_sentinels
from cachelab.errors import RedisUnavailable

CONNECTIONS = 50  # per client; the fifty-first call waits for a connection instead of failing
LATEST = 8  # clients that are kept although nobody holds them
MOST_RETRIES = 100

# What OpenSSL says of a port that speaks, but not TLS.
_PLAIN = {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}

_clients: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()
_latest: list[Any] = []  # the last ones that were asked for
_lock = _locks.lock()

log = logging.getLogger("cachelab")


def connect(
    url: str | None = None, check: bool = True, retries: int = 1, timeout: float = 0.2
) -> redis.Redis:
    """Return the shared client of a server, the same object for the same arguments.

    Texts come back as str (decode_responses). Up to 50 connections are open at once, to each node
    of a cluster, further calls queue. A client that nobody holds is closed when others have been
    asked for since.

    A cluster's client learns which node holds which keys when it is first used, and again when a
    node fails or says so. A client behind Sentinels asks them for the primary whenever it opens a
    connection; with ``?replica=yes`` for a replica, which a cluster's client then reads from, too:
    what a replica says may be old.

    Args:
        url: redis://, rediss:// or unix://; redis-cluster://host:port,host:port;
            redis-sentinel://host:port,host:port/service, whose Sentinels take the same user and
            password, or ?sentinel_username= and ?sentinel_password=; these two with rediss- for
            TLS. All with redis-py's options; None takes `server_url()`.
        check: Send one PING first.
        retries: How often a call is sent again after a broken connection or a timeout. That makes
            calls at-least-once: count with ``retries=0``, or one INCR may count twice.
        timeout: Seconds that a call waits for its reply, beyond what the size of command and reply
            explains at 5 MB/s; a call with its retries ends within (1 + retries) times that, the
            wait for a connection apart.

    Returns:
        A redis.Redis for all threads, for signal handlers and for forked children; of a cluster a
        redis.RedisCluster, which has the same commands.

    Raises:
        TypeError: url is no text, or retries or timeout no number.
        ValueError: The URL names no server or has an option that is none, or a number is out of
            range.
        RedisUnavailable: The server does not answer (with check).
    """
    url = hide(url)  # type: ignore[assignment]
    retries = _check.whole("retries", retries, least=0, most=MOST_RETRIES)
    timeout = _check.number("timeout", timeout, above=0, high=_check.LONGEST_WAIT)
    secret = _named(url)
    client: redis.Redis = _shared(("sync", secret, retries, timeout), _make)
    if check:
        ping(client, secret)
    return client


def connect_async(
    url: str | None = None, retries: int = 1, timeout: float = 0.2
) -> redis.asyncio.Redis:
    """Return the shared asyncio client of a server: the twin of `connect`, which does no I/O.

    The client may be made at module level and used in one event loop after another: each loop gets
    connections of its own. A loop that is busy with other things uses up nobody's timeout.

    Args:
        url: As in `connect`.
        retries: How often a call is sent again, as in `connect`.
        timeout: Seconds that a call waits for its reply, as in `connect`.

    Returns:
        A redis.asyncio.Redis for all event loops; of a cluster a redis.asyncio.RedisCluster.

    Raises:
        TypeError: url is no text, or retries or timeout no number.
        ValueError: The URL names no server or has an option that is none, or a number is out of
            range.
    """
    url = hide(url)  # type: ignore[assignment]
    retries = _check.whole("retries", retries, least=0, most=MOST_RETRIES)
    timeout = _check.number("timeout", timeout, above=0, high=_check.LONGEST_WAIT)
    client: redis.asyncio.Redis = _shared(("async", _named(url), retries, timeout), _make_async)
    return client


def server_url() -> str:
    """Return the URL of the server in use, for child processes, not for the screen.

    REDIS_URL if it is set; else REDIS_HOST, REDIS_PORT, REDIS_USERNAME and REDIS_PASSWORD if one of
    them is; else that of the embedded server, which starts at first use.

    Returns:
        The URL with its credentials.

    Raises:
        ValueError: One of these variables cannot be what it is for; the message names it.
        ServerError: The embedded server does not start.
    """
    if url := _from_environment():
        return str.__str__(url)
    from cachelab.server.server import embedded

    _say_embedded()
    return embedded().url


def ping(client: redis.Redis, url: str) -> None:
    """Send one PING.

    Args:
        client: The client to send it with.
        url: The URL that it was made of.

    Raises:
        RedisUnavailable: There was no answer; the message names server, cause and way out.
    """
    url = hide(url)  # type: ignore[assignment]
    try:
        client.check() if isinstance(client, Cluster) else client.ping()
        return
    except (RedisError, OSError) as error:
        if foreign(error):
            raise
        said = f"{address(url)}{_found(client)} {_cause(url, error)}\n{_way_out(url)}"
    raise RedisUnavailable(said)  # out here: the error itself may know the password


def variables() -> list[str]:
    """Return the names of the variables that are set of those that name the server."""
    if os.environ.get("REDIS_URL"):
        return ["REDIS_URL"]
    names = (f"REDIS_{part}" for part in ("HOST", "PORT", "USERNAME", "PASSWORD"))
    return [name for name in names if os.environ.get(name)]


def is_shared(url: str) -> bool:
    """Tell whether a client of this URL is in use."""
    return any(key[1] == url for key in _clients.keys())


def _shared(key: tuple[Any, ...], make: Callable[[tuple[Any, ...]], Any]) -> Any:
    """Return the client of a key: for as long as somebody holds it, or few were asked for since."""
    with _lock:
        client = _clients.get(key)
        if client is None:
            client = _clients.setdefault(key, make(key))
        _latest[:] = [client, *(other for other in _latest if other is not client)][:LATEST]
    return client


def _make(key: tuple[Any, ...]) -> Any:
    settings = _settings(key, OPTIONS, deadlines.BY_SCHEME)
    retry = Retry(*_backoff(key))
    if settings["mode"] == "cluster":
        return Cluster(settings.pop("nodes"), settings, retry, settings.pop("replica", False))
    if "service" in settings:
        once = Retry(NoBackoff(), 0)
        settings = behind_sentinels(settings, once, Pool, redis.Redis)
        pool: Pool = SentinelPool(**settings, retry=retry)
    else:
        pool = Pool(**settings, retry=retry)
    client = redis.Redis(connection_pool=pool)
    weakref.finalize(client, pool.disconnect, inuse_connections=False).atexit = False
    return client


def _make_async(key: tuple[Any, ...]) -> Any:
    settings = _settings(key, ASYNC_OPTIONS, deadlines_async.BY_SCHEME) | {"parser_class": Parser}
    retry = AsyncRetry(*_backoff(key))
    if settings["mode"] == "cluster":
        return AsyncCluster(settings.pop("nodes"), settings, retry, settings.pop("replica", False))
    if "service" in settings:
        once = AsyncRetry(NoBackoff(), 0)
        settings = behind_sentinels(settings, once, PoolPerLoop, redis.asyncio.Redis)
        pool: PoolPerLoop = SentinelPoolPerLoop(**settings, retry=retry)
    else:
        pool = PoolPerLoop(**settings, retry=retry)
    client = redis.asyncio.Redis(connection_pool=pool)
    weakref.finalize(client, pool.close_idle).atexit = False
    return client


def _settings(key: tuple[Any, ...], options: dict[str, Any], classes: dict[str, Any]) -> Any:
    """Return what a pool is made of; passwords in it are not shown."""
    _, url, _, timeout = key
    said = read(url, options)
    if isinstance(said, str):
        name = "REDIS_URL" if url == os.environ.get("REDIS_URL") else "url"
        raise ValueError(f"{name} {said}; it reads {address(url)}")
    scheme, _, kind = url.partition("://")[0].lower().partition("-")
    ours = {
        "connection_class": classes[scheme],
        "mode": "cluster" if kind == "cluster" else "standalone",
        "decode_responses": True,
        "socket_timeout": timeout,
        "max_connections": CONNECTIONS,
        "timeout": QUEUE,
    }
    if not said.keys() & {"lib_name", "lib_version"}:
        ours["driver_info"] = None  # two round trips fewer for each new connection
    return ours | said


def _backoff(key: tuple[Any, ...]) -> tuple[ExponentialWithJitterBackoff, int]:
    _, _, retries, timeout = key
    return ExponentialWithJitterBackoff(cap=timeout / 4, base=min(0.01, timeout / 4)), retries


def _named(url: object) -> Secret:
    """Return the URL to use."""
    if url is None:
        return Secret(server_url())
    if isinstance(url, type):
        raise TypeError(f"url must be a str, not {url.__name__}")
    assert isinstance(url, Secret)
    return url


def _from_environment() -> Secret | None:
    """Return the URL that the environment names, if it names one."""
    if url := Secret(os.environ.get("REDIS_URL", "")):
        return url
    host, port, user, password = (
        Secret(os.environ.get(f"REDIS_{name}", ""))
        for name in ("HOST", "PORT", "USERNAME", "PASSWORD")
    )
    if not (host or port or user or password):
        return None
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise ValueError(f"REDIS_PORT must be a whole number of 1 to 65535{_kubernetes(port)}")
    if not re.fullmatch(r"[\w.-]*|\[?[\da-fA-F:.]+(%\w+)?\]?", host):
        raise ValueError(
            "REDIS_HOST must be a host's name or address alone, without scheme or port"
        )
    for name, text in (("REDIS_USERNAME", user), ("REDIS_PASSWORD", password)):
        if not _is_utf8(text):
            raise ValueError(f"{name} must be text in UTF-8")
    login = Secret(
        f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    )
    place = f"[{host.strip('[]')}]" if ":" in host else host or "localhost"
    return Secret(f"redis://{login}{place}:{port or 6379}")


def _kubernetes(port: str) -> str:
    if not port.startswith("tcp://"):
        return ""
    return (
        f", not {address(port)}. Kubernetes sets it so in the pods beside a Service named redis: "
        "set REDIS_URL, or enableServiceLinks: false in the pod"
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _say_embedded() -> None:
    """Say once where nobody asked for it that this process has a server of its own."""
    own = getattr(sys.modules.get("__main__"), "__package__", None)
    is_kernel = "ipykernel" in sys.modules or hasattr(sys, "ps1")
    streams = (sys.stdin, sys.stdout, sys.stderr)
    is_terminal = any(stream and not stream.closed and stream.isatty() for stream in streams)
    if own != "cachelab" and not is_kernel and not is_terminal:
        log.warning(
            "no REDIS_URL is set: this process starts a Redis server of its own, which no other "
            "process shares; set REDIS_URL to the server that all should use"
        )


def _found(client: Any) -> str:
    """Return where the Sentinels of a client have found what it wanted, if they have."""
    pool = getattr(client, "connection_pool", None)
    if not isinstance(pool, SentinelPool) or not pool.sentinels.found:
        return ""
    host, port = pool.sentinels.found
    return f", which leads to {host}:{port},"


def _cause(url: str, error: Exception) -> str:
    """Return what is wrong with a server, from the error of a PING; of several, with each."""
    away = next((cause for cause in chain(error) if isinstance(cause, Away)), None)
    if away is None:
        return _reason(url, error)
    found = {place: _reason(url, one) for place, one in away.tried.items()}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    each = "; ".join(f"{place} {said.rstrip('.')}" for place, said in found.items())
    return f"cannot be used: {each}."


def _reason(url: str, error: Exception) -> str:
    """Return what is wrong with one of them."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return "refuses the user name or password."
    for cause in chain(error):
        if isinstance(cause, UnknownHost):
            return f"cannot be found: {cause}."
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"shows a certificate that is not to be trusted: {cause.verify_message}. The URL's "
                "option ssl_ca_certs=/path/to/ca.pem names who signed it."
            )
        if isinstance(cause, ssl.SSLError) and cause.reason not in _PLAIN:
            return f"refuses TLS as it is asked for: {cause.reason or cause}."
        if isinstance(cause, ssl.SSLError):
            return f"does not speak TLS: the URL of a plain port begins with {_plain(url)}."
        if isinstance(cause, ConnectionRefusedError):
            return "refuses connections: nothing listens there."
        if isinstance(cause, InvalidResponse):
            return f"does not answer as Redis does ({cause}); a port for TLS needs rediss://."
    if isinstance(error, redis.TimeoutError):
        hint = f" If it does not speak TLS, the URL begins with {_plain(url)}."
        return f"did not answer in time.{hint if url.lower().startswith('rediss') else ''}"
    return f"cannot be used: {str(error).rstrip('.')}."


def _plain(url: str) -> str:
    """Return how the URL of the same kind begins where nothing is encrypted."""
    return url.lower().partition("://")[0].replace("rediss", "redis", 1) + "://"


def _way_out(url: str) -> str:
    """Return what to do about it: with the variables where it was they that named the server."""
    names = variables()
    if names and url == _from_environment():
        said = " ".join(names)
        return (
            f"Start that server or correct {said.replace(' ', ', ')}; "
            f"`unset {said}` uses the embedded server."
        )
    return (
        "`python -m cachelab doctor` shows what works; "
        "`python -m cachelab serve` keeps a server running."
    )
