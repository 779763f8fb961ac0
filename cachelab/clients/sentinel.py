"""A client behind Sentinels: each connection asks them where the primary is, or a replica.

In time, as everything is here. What follows is the protocol for Sentinel's clients: whoever
answered last is asked first, and a server is taken at its word if it says that it is no primary.
"""

# mypy: allow-untyped-calls
# redis-py's connections and pools are typed in part.

import random
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NoReturn

from redis.exceptions import ConnectionError, ReadOnlyError, RedisError
from redis.utils import str_if_bytes

from cachelab._loops import PerLoop
from cachelab.clients import deadlines, deadlines_async
from cachelab.clients.deadlines import Pool, TCPConnection, TLSConnection
from cachelab.clients.deadlines_async import (
    ASKING,
    AsyncTCPConnection,
    AsyncTLSConnection,
    Once,
    PoolPerLoop,
)
from cachelab.clients.failures import Away, passed, turns

Place = tuple[str, int]

WHERE = "SENTINEL GET-MASTER-ADDR-BY-NAME"  # tells of the new one before a fail-over has ended
IDLE = 1.0  # seconds: Sentinels may replace a primary that is away for as long


class UnknownService(ConnectionError):
    """A Sentinel answers, and knows no service of that name."""


class Sentinels:
    """The Sentinels of a service.

    Args:
        clients: One for each, by its address.
        service: The name that they give to a primary and its replicas.
        replica: Whether a replica is wanted: the primary while there is none.
        patience: Seconds within which one of them has to answer.

    Attributes:
        found: Where what is wanted stood when they were last asked, None once that was not true.
    """

    def __init__(self, clients: Mapping[str, Any], service: str, replica: bool, patience: float):
        self.found: Place | None = None
        self.replica = replica
        self.service = service
        self.clients = dict(clients)
        self._names = tuple(clients)  # who answered last comes first
        self.patience = patience
        self._once: PerLoop[Once[Place]] = PerLoop(
            lambda: Once(self._place_async, lambda: list(self._names), ASKING * patience)
        )

    def place(self) -> Place:
        """Return where to connect to.

        Raises:
            Away: None of the Sentinels knows.
        """
        tried: dict[str, Exception] = {}
        limit = deadlines.DEADLINE.until
        names = self._names
        for name, until in turns(names, limit, self.patience):
            try:
                deadlines.DEADLINE.until = until
                return self._took(name, self._ask(self.clients[name].execute_command))
            except (RedisError, OSError) as error:
                tried[name] = passed(error)
            finally:
                deadlines.DEADLINE.until = limit
        raise Away(tried)

    async def place_async(self) -> Place:
        """Return what `place` does: the same to all that ask meanwhile in this event loop."""
        return await self._once.here()()

    async def _place_async(self, end: float) -> Place:
        tried: dict[str, Exception] = {}
        names = self._names
        for name, until in turns(names, end, self.patience):
            limit = deadlines_async.DEADLINE.set(until)
            try:
                return self._took(name, await self._ask_async(self.clients[name].execute_command))
            except (RedisError, OSError) as error:
                tried[name] = passed(error)
            finally:
                deadlines_async.DEADLINE.reset(limit)
        raise Away(tried)

    def doubt(self) -> None:
        """Ask another one first the next time: the last answer was not true any more."""
        self.found = None
        self._names = (*self._names[1:], self._names[0])

    def _ask(self, ask: Callable[..., Any]) -> list[Place]:
        if self.replica and (alive := _alive(ask("SENTINEL SLAVES", self.service))):
            return alive
        place = ask(WHERE, self.service)
        return self._primary(place) if place else self._unknown(ask("SENTINEL MASTERS"))

    async def _ask_async(self, ask: Callable[..., Any]) -> list[Place]:
        if self.replica and (alive := _alive(await ask("SENTINEL SLAVES", self.service))):
            return alive
        place = await ask(WHERE, self.service)
        return self._primary(place) if place else self._unknown(await ask("SENTINEL MASTERS"))

    def _primary(self, place: tuple[Any, Any]) -> list[Place]:
        host, port = place
        return [(str(str_if_bytes(host)), int(port))]

    def _unknown(self, known: Mapping[str, Any]) -> NoReturn:
        named = ", ".join(sorted(known)) or "none"
        raise UnknownService(
            f"its Sentinels know no service {self.service}, which the URL names after the "
            f"addresses; they know: {named}"
        )

    def _took(self, name: str, places: list[Place]) -> Place:
        self._names = (name, *(other for other in self._names if other != name))
        self.found = random.choice(places)
        return self.found


def _alive(replicas: list[dict[str, Any]]) -> list[Place]:
    return [
        (one["ip"], int(one["port"]))
        for one in replicas
        if not (one["is_sdown"] or one["is_odown"] or one["is_disconnected"])
    ]


class _Found:
    """A connection to where the Sentinels say: the primary that they know now, or a replica.

    What was idle for long is used after they have been asked again: an old primary that is back
    would take what is written, until they tell it, some ten seconds later, whose replica it is.
    """

    def __init__(self, *, sentinels: Sentinels, **settings: Any):
        super().__init__(**settings)
        self._sentinels = sentinels
        self._used = monotonic()

    def _was_idle(self: Any) -> bool:
        now = monotonic()
        was_idle = now - self._used > IDLE
        self._used = now
        return was_idle and self.is_connected and not self._sentinels.replica

    def _follow(self: Any) -> None:
        known = self._sentinels.found
        if known not in (None, (self.host, self.port)) and not self._sentinels.replica:
            self.dropped = True  # there is a new primary

    def _check_role(self: Any, greeting: Any) -> None:
        role = greeting.get("role", greeting.get(b"role")) if greeting else None
        if not self._sentinels.replica and role is not None and str_if_bytes(role) != "master":
            self._sentinels.doubt()
            raise ConnectionError(f"{self.host}:{self.port} is no primary any more")


class _FoundConnection(_Found):
    def connect(self: Any) -> None:  # the pool calls this as each call begins
        if self._was_idle():
            limit = deadlines.DEADLINE.until
            try:
                deadlines.DEADLINE.until = min(limit, monotonic() + self._sentinels.patience / 2)
                self._sentinels.place()
            except (RedisError, OSError) as error:
                passed(error)  # nobody knows better
            finally:
                deadlines.DEADLINE.until = limit
        self._follow()
        super().connect()  # type: ignore[misc]

    def _connect(self: Any) -> Any:
        limit = deadlines.DEADLINE.until
        try:
            deadlines.DEADLINE.until = min(self._until, limit)
            self.host, self.port = self._sentinels.place()
        finally:
            deadlines.DEADLINE.until = limit
        return super()._connect()  # type: ignore[misc]

    def on_connect_check_health(self: Any, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)  # type: ignore[misc]
        self._check_role(self.handshake_metadata)

    def read_response(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except ReadOnlyError as error:
            if self._sentinels.replica:
                raise
            said = str(error)
        self._sentinels.doubt()
        self.disconnect()
        raise ConnectionError(f"{self.host}:{self.port} is no primary any more: {said}")


class _AsyncFoundConnection(_Found):
    async def connect(self: Any) -> None:
        if self._was_idle():
            until = min(deadlines_async.DEADLINE.get(), monotonic() + self._sentinels.patience / 2)
            limit = deadlines_async.DEADLINE.set(until)
            try:
                await self._sentinels.place_async()
            except (RedisError, OSError) as error:
                passed(error)  # nobody knows better
            finally:
                deadlines_async.DEADLINE.reset(limit)
        self._follow()
        await super().connect()  # type: ignore[misc]

    async def _open(self: Any) -> Any:
        limit = deadlines_async.DEADLINE.set(self._until)
        try:
            self.host, self.port = await self._sentinels.place_async()
        finally:
            deadlines_async.DEADLINE.reset(limit)
        self._end = min(monotonic() + self._timeout, self._until)
        return await super()._open()  # type: ignore[misc]

    async def on_connect_check_health(self: Any, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)  # type: ignore[misc]
        self._check_role(self.greeting)

    async def read_response(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except ReadOnlyError as error:
            if self._sentinels.replica:
                raise
            said = str(error)
        self._sentinels.doubt()
        await self.disconnect(nowait=True)
        raise ConnectionError(f"{self.host}:{self.port} is no primary any more: {said}")


class FoundTCPConnection(_FoundConnection, TCPConnection):
    """redis-sentinel://"""


class FoundTLSConnection(_FoundConnection, TLSConnection):
    """rediss-sentinel://"""


class AsyncFoundTCPConnection(_AsyncFoundConnection, AsyncTCPConnection):
    """redis-sentinel://"""


class AsyncFoundTLSConnection(_AsyncFoundConnection, AsyncTLSConnection):
    """rediss-sentinel://"""


FOUND = {
    TCPConnection: FoundTCPConnection,
    TLSConnection: FoundTLSConnection,
    AsyncTCPConnection: AsyncFoundTCPConnection,
    AsyncTLSConnection: AsyncFoundTLSConnection,
}


class SentinelPool(Pool):
    """Connections to where the Sentinels say."""

    def __init__(self, *, sentinels: Sentinels, **settings: Any):
        super().__init__(sentinels=sentinels, **settings)
        self.sentinels = sentinels
        self.service_name = _name(sentinels)


class SentinelPoolPerLoop(PoolPerLoop):
    """Connections to where the Sentinels say, in each event loop, and those to them."""

    def __init__(self, *, sentinels: Sentinels, **settings: Any):
        super().__init__(sentinels=sentinels, **settings)
        self.sentinels = sentinels
        self.service_name = _name(sentinels)
        self._all = [client.connection_pool for client in sentinels.clients.values()]

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        for pool in self._all:
            await pool.disconnect(inuse_connections)

    def close_idle(self) -> None:
        super().close_idle()
        for pool in self._all:
            pool.close_idle()


def _name(sentinels: Sentinels) -> str:
    """Return what tells the service from others of that name."""
    return f"{sentinels.service} of {','.join(sorted(sentinels.clients))}"


def behind_sentinels(
    settings: dict[str, Any],
    retry: Any,
    pool_class: Callable[..., Any],
    client_class: Callable[..., Any],
) -> dict[str, Any]:
    """Return what a pool behind Sentinels is made of.

    Args:
        settings: What the URL says, and what connections are made of.
        retry: A Retry that sends nothing again, for what the Sentinels are asked.
        pool_class: What connects to a Sentinel: Pool or PoolPerLoop.
        client_class: What asks it, redis.Redis or its asyncio twin.
    """
    servers = settings.copy()
    nodes, service = servers.pop("nodes"), servers.pop("service")
    replica = servers.pop("replica", False)
    login = {name: servers.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    watchers = {name: value for name, value in servers.items() if name != "db"}
    if login != {"username": None, "password": None}:
        watchers |= login
    watchers |= {"mode": "sentinel", "retry": retry}
    clients = {
        f"{host}:{port}": client_class(connection_pool=pool_class(host=host, port=port, **watchers))
        for host, port in nodes
    }
    sentinels = Sentinels(clients, service, replica, settings["socket_timeout"])
    servers["connection_class"] = FOUND[servers["connection_class"]]
    return servers | {"sentinels": sentinels}
