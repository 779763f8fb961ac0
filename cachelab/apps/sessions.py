"""Sessions: an opaque random id in a cookie, and what the server knows of whoever brings it.

The id is drawn at random and is new after each log-in, so nobody can guess it or plant it. Redis
holds its SHA-256, so that who reads Redis can use none. A read is one command, GETEX, which also
moves the expiry; a change is one script that touches the fields it names and no others.

All sessions of a user share a slot, by the `{tag}` that their ids begin with, together with a list
of them. So a log-in writes session and list in one step, and a log-out everywhere deletes all that
the list names in one: each session was made before it and is gone, or is newer.

A value is two lines of JSON: who, on what device, since when; then each field with its value as
JSON text, so that a script can change one and never has to understand the others.
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from cachelab import _check
from cachelab._secret import Secret
from cachelab.apps.calls import ONCE, SENT_AGAIN, Calls, checked_prefix, named, slot_of
from cachelab.cache.codec import encode, from_json
from cachelab.cache.flights import to_its_end

IDS = re.compile(r"([0-9a-f]{4})\.([0-9a-f]{1,13})\.[\w-]{43}", re.ASCII)
LONGEST = 10 * 365 * 86_400.0  # seconds
MOST_SUM = 2**53 - 1  # Lua counts exactly up to here
ENDED = "ended:"  # in front of a session that a log-in is replacing
LEFT_ENDED = "60000"  # milliseconds

# The new session, and its place in the list of the user's, without those whose time is over and
# the oldest beyond the limit. A place is the microsecond at which the session must have ended, or
# the one behind the last place; the list lives until then.
LOGIN = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
local place = math.max(now + ARGV[3] * 1000, last and last + 1 or 0)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], place, KEYS[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[4]) do
  redis.call('DEL', redis.call('ZPOPMIN', KEYS[2])[1])
end
redis.call('PEXPIREAT', KEYS[2], math.ceil(place / 1000))
return 1
"""

# From here on nobody reads or changes it, but a log-in that is repeated finds its data.
END = """
local text = redis.call('GET', KEYS[1])
if not text then return false end
if text:sub(1, 6) == 'ended:' then return text:sub(7) end
redis.call('SET', KEYS[1], 'ended:' .. text, 'PX', ARGV[1])
return text
"""

# 'set' name value, 'drop' name '', 'add' name number: only to a session that is there. What the
# same request has added is not added again.
CHANGE = (
    ONCE
    + """
local text = redis.call('GET', KEYS[1])
local cut = text and text:sub(1, 1) == '{' and text:find('\\n', 1, true)
if not cut then return false end
local fields = cjson.decode(text:sub(cut + 1))
for at = 5, #ARGV, 3 do
  local how, name, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if how == 'add' then
    local held = fields[name] or '0'
    if not held:match('^%-?%d+$') then return {'it is no whole number', held} end
    local sum = tonumber(held) + tonumber(value)
    if math.abs(sum) >= 2 ^ 53 then return {'the sum is beyond 2**53 - 1', held} end
    value = once(KEYS[2], ARGV[3], ARGV[4]) and string.format('%.0f', sum) or held
  end
  if how == 'drop' then fields[name] = nil else fields[name] = value end
end
local new = text:sub(1, cut) .. cjson.encode(fields)
if #new > tonumber(ARGV[2]) then return {'too large', tostring(#new)} end
redis.call('SET', KEYS[1], new, 'PX', ARGV[1])
return new
"""
)

LOGOUT_EVERYWHERE = """
local ended = 0
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  ended = ended + redis.call('DEL', key)
end
redis.call('DEL', KEYS[1])
return ended
"""

DEVICES = """
local found = {}
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local text = redis.call('GET', key)
  if text then
    found[#found + 1] = {key, text}
  else
    redis.call('ZREM', KEYS[1], key)
  end
end
return found
"""


@dataclass(frozen=True, slots=True)
class Session:
    """What the server knows of whoever brings an id.

    Attributes:
        id: For the cookie; its repr does not show it.
        user: Who has logged in, None for a guest.
        data: The fields, by name.
        device: What the log-in said that it came from.
        since: When it began, in seconds since 1970.
    """

    id: str
    user: str | None
    data: dict[str, Any]
    device: str
    since: float


@dataclass(frozen=True, slots=True)
class Device:
    """One of a user's sessions, as a page that lists them shows it.

    Attributes:
        handle: Its name for `end_device`; it is no id, and opens nothing.
        device: What the log-in said that it came from.
        since: When it began, in seconds since 1970.
    """

    handle: str
    device: str
    since: float


class _Core:
    """What both classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(
        self,
        calls: Calls,
        ttl: float,
        max_age: float,
        prefix: str,
        max_devices: int,
        max_bytes: int,
        clock: Callable[[], float],
    ):
        self._calls = calls
        self._ttl = _check.number("ttl", ttl, above=0, high=LONGEST)
        self._max_age = _check.number("max_age", max_age, above=0, high=LONGEST)
        self._prefix = checked_prefix(prefix)
        self._max_devices = _check.whole("max_devices", max_devices, least=1)
        self._max_bytes = _check.whole("max_bytes", max_bytes, least=1)
        self._clock = clock

    async def begin(self, data: Mapping[str, Any] | None = None) -> Session:
        """Begin the session of a guest.

        Args:
            data: Its first fields: text to what JSON can hold.
        """
        session = self._new(None, secrets.token_hex(2), data or {}, "")
        key, left = self._places(session.id) or ("", 0)
        await self._calls.command("SET", key, self._text_of(session), "PX", str(left))
        return session

    async def login(
        self,
        user: str,
        old: str | None = None,
        data: Mapping[str, Any] | None = None,
        device: str = "",
    ) -> Session:
        """Begin the session of a user who has shown who it is, with an id that nobody had before.

        It may be repeated: what a try that broke off has left behind expires.

        Args:
            user: Who it is.
            old: The id that the browser brought. That session ends; a guest's fields, and the
                user's own, move into the new one.
            data: More fields.
            device: What it comes from, for `devices`.
        """
        _check.identity("user", user)
        _check.text("device", device)
        self._encoded(data or {})
        fields = dict(data or {})
        if old is not None and (place := self._places(old)):
            text = await self._calls.script(END, [place[0]], LEFT_ENDED)
            if (before := _session(old, text)) and before.user in (None, user):
                fields = before.data | fields
        session = self._new(user, slot_of(user)[1:-1], fields, device)
        key, left = self._places(session.id) or ("", 0)
        text, most = self._text_of(session), str(self._max_devices)
        age = str(round(1000 * self._max_age))
        await self._calls.script(LOGIN, [key, self._list(user)], text, str(left), age, most)
        if old is not None:
            await self.logout(old)
        return session

    async def get(self, id: str) -> Session | None:
        """Return the session of an id, None if there is none; it lives for ttl from now on.

        What no session can be called is no error, since a browser may send anything.
        """
        if (place := self._places(id)) is None:
            return None
        key, left = place
        return _session(id, await self._calls.command("GETEX", key, "PX", str(left)))

    async def update(
        self, id: str, changes: Mapping[str, Any], remove: Iterable[str] = ()
    ) -> Session | None:
        """Set some fields and remove others; all others stay as they are by then.

        Returns:
            The session as it is now; None if there is none: it is not made anew.

        Raises:
            TypeError: A name is no text, or JSON cannot hold a value.
            ValueError: The session would be larger than max_bytes.
        """
        words = [word for pair in self._encoded(changes).items() for word in ("set", *pair)]
        for name in _check.several("remove", remove):
            words += ("drop", _check.text("the name of a field", name), "")
        return await self._changed(id, words, "update")

    async def increment(
        self, id: str, field: str, by: int = 1, request: str | None = None
    ) -> int | None:
        """Add to a field that holds a whole number, or nothing yet.

        Args:
            id: Whose session.
            field: The name of the field.
            by: What to add.
            request: What this addition is called: within ten minutes it is made once, however
                often it is sent. None for a name that tells this call from all others.

        Returns:
            The sum; None if there is no session.

        Raises:
            ValueError: The field holds something else, or the sum is beyond 2**53 - 1.
        """
        _check.text("field", field)
        by = _check.whole("by", by, least=-MOST_SUM, most=MOST_SUM)
        words = ["add", field, str(by)]
        session = await self._changed(id, words, f"increment of {field!r}", named(request))
        return None if session is None else int(session.data[field])

    async def logout(self, id: str) -> bool:
        """End the session of an id; return whether there was one."""
        if (place := self._places(id)) is None:
            return False
        key, _ = place
        text = await self._calls.command("GETDEL", key)
        session = _session(id, text and text.removeprefix(ENDED))
        if session and session.user is not None:
            await self._calls.command("ZREM", self._list(session.user), key)
        return session is not None

    async def logout_everywhere(self, user: str) -> int:
        """End all sessions of a user, in one step; return how many there were."""
        _check.identity("user", user)
        ended: int = await self._calls.script(LOGOUT_EVERYWHERE, [self._list(user)])
        return ended

    async def devices(self, user: str) -> list[Device]:
        """Return the sessions of a user, the oldest first, without letting them live longer."""
        _check.identity("user", user)
        found = []
        for key, text in await self._calls.script(DEVICES, [self._list(user)]):
            if session := _session("", text):
                handle = key.rpartition(":")[2]
                found.append(Device(handle, session.device, session.since))
        return found

    async def end_device(self, user: str, handle: str) -> bool:
        """End one of a user's sessions by its handle; return whether there was one."""
        _check.identity("user", user)
        key = f"{self._prefix}{slot_of(user)}:{_check.text('handle', handle)}"
        if not await self._calls.command("ZREM", self._list(user), key):
            return False  # nobody's, or another user's
        return bool(await self._calls.command("DEL", key))

    async def _changed(
        self, id: str, words: list[str], what: str, request: str = ""
    ) -> Session | None:
        if (place := self._places(id)) is None:
            return None
        key, left = place
        rules = (str(left), str(self._max_bytes), request, SENT_AGAIN)
        reply = await self._calls.script(CHANGE, [key, f"{key}:seen"], *rules, *words)
        if isinstance(reply, list):
            why, seen = reply
            if why == "too large":
                why = f"the session would have {seen} bytes, and max_bytes is {self._max_bytes}"
                raise ValueError(f"the {what} is refused: {why}")
            raise ValueError(f"the {what} is refused: {why} ({seen})")
        return _session(id, reply)

    def _new(self, user: str | None, tag: str, data: Mapping[str, Any], device: str) -> Session:
        now = self._clock()
        end = int(1000 * (now + self._max_age))
        id = Secret(f"{tag}.{end:x}.{secrets.token_urlsafe(32)}")
        return Session(id, user, dict(data), device, now)

    def _places(self, id: str) -> tuple[str, int] | None:
        """Return the key of an id, and the ms that it may live; None for what cannot be alive.

        The time that a session may live at most stands in its id: a read needs no other key, and
        who changes it has another id.
        """
        found = IDS.fullmatch(_check.text("id", id))
        if found is None:
            return None
        left = min(1000 * self._ttl, int(found[2], 16) - 1000 * self._clock())
        if left < 1:
            return None
        name = hashlib.sha256(id.encode()).hexdigest()
        return f"{self._prefix}{{{found[1]}}}:{name}", int(left)

    def _list(self, user: str) -> str:
        return f"{self._prefix}{slot_of(user)}:of:{user}"

    def _encoded(self, data: Mapping[str, Any]) -> dict[str, str]:
        if not isinstance(data, Mapping):
            raise TypeError(f"data must be a mapping of names to values, not {data!r:.80}")
        what = "the value of the field"
        names = [_check.text("the name of a field", name) for name in data]
        return {name: encode(name, data[name], what) for name in names}

    def _text_of(self, session: Session) -> str:
        about = {"user": session.user, "device": session.device, "since": session.since}
        text = f"{json.dumps(about)}\n{json.dumps(self._encoded(session.data))}"
        if len(text) > self._max_bytes:
            raise ValueError(
                f"the session would have {len(text)} bytes, and max_bytes is {self._max_bytes}"
            )
        return text


class AsyncSessions(_Core):
    """Sessions in Redis, for asyncio. Redis alone has them: without it they cannot be read.

    Args:
        client: What `connect_async` returns.
        ttl: Seconds that a session lives after it was last read or changed.
        max_age: Seconds that it lives at most, to within the difference of the servers' clocks.
        prefix: What every key starts with.
        max_devices: Sessions of one user; a log-in beyond that ends the oldest.
        max_bytes: The size of a session at most.
        clock: Where the time comes from, in seconds since 1970.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        ttl: float = 1800,
        max_age: float = 30 * 86_400,
        prefix: str = "session:",
        max_devices: int = 1000,
        max_bytes: int = 2**16,
        clock: Callable[[], float] = time.time,
    ):
        calls = Calls(client, "async")
        super().__init__(calls, ttl, max_age, prefix, max_devices, max_bytes, clock)


class Sessions:
    """The twin of `AsyncSessions` that blocks, with the same arguments and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        ttl: float = 1800,
        max_age: float = 30 * 86_400,
        prefix: str = "session:",
        max_devices: int = 1000,
        max_bytes: int = 2**16,
        clock: Callable[[], float] = time.time,
    ):
        calls = Calls(client, "sync")
        self._core = _Core(calls, ttl, max_age, prefix, max_devices, max_bytes, clock)

    def begin(self, data: Mapping[str, Any] | None = None) -> Session:
        """See `AsyncSessions.begin`."""
        return to_its_end(self._core.begin(data))

    def login(
        self,
        user: str,
        old: str | None = None,
        data: Mapping[str, Any] | None = None,
        device: str = "",
    ) -> Session:
        """See `AsyncSessions.login`."""
        return to_its_end(self._core.login(user, old, data, device))

    def get(self, id: str) -> Session | None:
        """See `AsyncSessions.get`."""
        return to_its_end(self._core.get(id))

    def update(
        self, id: str, changes: Mapping[str, Any], remove: Iterable[str] = ()
    ) -> Session | None:
        """See `AsyncSessions.update`."""
        return to_its_end(self._core.update(id, changes, remove))

    def increment(self, id: str, field: str, by: int = 1, request: str | None = None) -> int | None:
        """See `AsyncSessions.increment`."""
        return to_its_end(self._core.increment(id, field, by, request))

    def logout(self, id: str) -> bool:
        """See `AsyncSessions.logout`."""
        return to_its_end(self._core.logout(id))

    def logout_everywhere(self, user: str) -> int:
        """See `AsyncSessions.logout_everywhere`."""
        return to_its_end(self._core.logout_everywhere(user))

    def devices(self, user: str) -> list[Device]:
        """See `AsyncSessions.devices`."""
        return to_its_end(self._core.devices(user))

    def end_device(self, user: str, handle: str) -> bool:
        """See `AsyncSessions.end_device`."""
        return to_its_end(self._core.end_device(user, handle))


def _session(id: str, text: str | None) -> Session | None:
    """Return the session that a text holds, None for one that has ended or holds none."""
    try:
        about, _, fields = (text or "").partition("\n")
        known = from_json(about)
        data = {name: from_json(value) for name, value in from_json(fields).items()}
        return Session(Secret(id), known["user"], data, known["device"], known["since"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
