"""The stream of writes that wait for their rows: its keys, its scripts, what a reply means.

All keys of one name are in one slot, so each script is one step on a cluster, too. What is here is
written once: with an asyncio client each call is to be awaited.
"""

import uuid
from typing import Any, NamedTuple

from redis.exceptions import ReadOnlyError

from cachelab import _check
from cachelab.clients import drop_connections, shards
from cachelab.clients.failures import passed
from cachelab.errors import RedisUnavailable

KEPT = 5.0  # seconds, and four timeouts, that a put is known by its token, should it come again

# {1, message id}, or {0, length} where the stream is full. A put that comes again, since the reply
# to the first was lost, gets the first one's id, and writes for what waits for replicas to see it.
# HLEN refuses a key of another type before anything is written.
PUT = """
local sent = redis.call('GET', KEYS[3])
if sent then
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  return {1, sent}
end
local length = redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[2])
if length >= tonumber(ARGV[3]) then return {0, length} end
local message = redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'value', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], message .. ' ' .. ARGV[2])
redis.call('SET', KEYS[3], message, 'PX', ARGV[4])
return {1, message}
"""

# Each message that a dead worker had, with how often it has been delivered by now; and where to go
# on looking.
CLAIM = """
local group, me, idle, from, count = unpack(ARGV)
local found = redis.call('XAUTOCLAIM', KEYS[1], group, me, idle, from, 'COUNT', count)
local messages = {}
for at, entry in ipairs(found[2]) do
  local known = redis.call('XPENDING', KEYS[1], group, entry[1], entry[1], 1)
  messages[at] = {entry[1], entry[2], known[1] and known[1][4] or 1}
end
return {found[1], messages}
"""

# Make messages as young as if they were claimed anew, those that are still this worker's.
RENEW = """
local group, me = ARGV[1], ARGV[2]
for at = 3, #ARGV do
  local known = redis.call('XPENDING', KEYS[1], group, ARGV[at], ARGV[at], 1)[1]
  if known and known[2] == me then
    redis.call('XCLAIM', KEYS[1], group, me, 0, ARGV[at], 'JUSTID')
  end
end
return 1
"""

# Acknowledge messages; then forget and trim what every group has applied: what lies below the
# oldest message that one of them has not. That message's id, and the server's clock.
ACKNOWLEDGE = """
local function less(a, b)
  local am, as = a:match('(%d+)-(%d+)')
  local bm, bs = b:match('(%d+)-(%d+)')
  if am == bm then am, bm = as, bs end
  return #am < #bm or #am == #bm and am < bm
end
local function after(id)
  local ms, seq = id:match('(%d+)-(%d+)')
  return string.format('%s-%.0f', ms, tonumber(seq) + 1)
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
if #ARGV > 1 then redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2)) end
for at = 2, #ARGV do redis.call('HDEL', KEYS[3], ARGV[1] .. ' ' .. ARGV[at]) end
local floor
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local facts = {}
  for at = 1, #group, 2 do facts[group[at]] = group[at + 1] end
  local oldest = redis.call('XPENDING', KEYS[1], facts['name'])[2]
    or after(facts['last-delivered-id'])
  if not floor or less(oldest, floor) then floor = oldest end
end
if not floor then return {} end
local applied = redis.call('XRANGE', KEYS[1], '-', '(' .. floor, 'COUNT', 1000)
for _, entry in ipairs(applied) do
  for at = 1, #entry[2], 2 do
    local id = entry[2][at + 1]
    local held = entry[2][at] == 'id' and redis.call('HGET', KEYS[2], id)
    if held and held:sub(1, #entry[1] + 1) == entry[1] .. ' ' then
      redis.call('HDEL', KEYS[2], id)
    end
  end
end
if #applied > 0 then redis.call('XTRIM', KEYS[1], 'MINID', after(applied[#applied][1])) end
return {floor, redis.call('TIME')[1]}
"""

# Take back the count of a try that told nothing; and the whole of it where another worker has
# acknowledged the message meanwhile.
UNCOUNT = """
if redis.call('HINCRBY', KEYS[1], ARGV[1], -1) < 1 then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""

# Put a message aside and acknowledge it: so it is always in one place, and there once.
SET_ASIDE = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1] .. ' ' .. ARGV[2])
redis.call('XADD', KEYS[2], '*', 'stream', ARGV[3], 'id', ARGV[4], 'value', ARGV[5],
  'error', ARGV[6], 'when', redis.call('TIME')[1], 'message', ARGV[2], 'group', ARGV[1])
return 1
"""

# Forget a consumer that leaves, and those that have not been heard of for so many milliseconds:
# none that has a message, which would be lost with it.
LEAVE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local facts = {}
  for at = 1, #consumer, 2 do facts[consumer[at]] = consumer[at + 1] end
  local leaves = facts['name'] == ARGV[2] or facts['idle'] > tonumber(ARGV[3])
  if leaves and facts['pending'] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts['name'])
  end
end
return 1
"""


class Message(NamedTuple):
    """One put as a worker reads it.

    Attributes:
        message_id: The stream's own, "milliseconds-sequence" by the server's clock.
        id: The id of the row.
        text: The value as JSON; "null" for a row to delete.
        deliveries: How often a worker was given it, this time included.
    """

    message_id: str
    id: str
    text: str
    deliveries: int = 1

    @property
    def order(self) -> tuple[int, int]:
        """What sorts messages as they were put."""
        return order(self.message_id)


def order(message_id: str) -> tuple[int, int]:
    """Return what sorts message ids: they are numbers, not text.

    >>> order("1700000000000-9") < order("1700000000000-10")
    True
    """
    ms, _, sequence = message_id.partition("-")
    return int(ms), int(sequence)


class Stream:
    """The keys of one stream of writes, and the calls that producers and workers make.

    Args:
        client: A redis.Redis or RedisCluster, or an asyncio one.
        name: What the keys are called by; text without braces.

    Attributes:
        client: The client.
        stream: The key of the stream itself.
        pending: Of the hash of what each id is to become: "message-id value".
        tries: Of the hash that counts failures of messages, by group.
        aside: Of the stream of messages that were set aside.
    """

    def __init__(self, client: Any, name: str):
        self.name = _check.identity("name", name)
        if "{" in name or "}" in name:
            raise ValueError(f"name must be without braces, which tell keys apart, not {name!r}")
        self.client = client
        self._kept = str(round(1000 * (KEPT + 4 * min(patience(client), 60.0))))
        self.stream, self.pending, self.tries, self.aside = (
            f"{{{name}}}:{part}" for part in ("stream", "pending", "tries", "aside")
        )
        self.length = "XLEN", self.stream

    def send(self, *commands: tuple[str, ...]) -> Any:
        """Reply to each command, undecoded, or the error that came instead: in one trip."""
        return shards.send(self.client, [(self.stream, words) for words in commands])

    def put(self, id: str, text: str, limit: int) -> tuple[str, ...]:
        """Return the command that records a write; sent again it records nothing more."""
        sent = f"{{{self.name}}}:put:{uuid.uuid4().hex}"
        return "EVAL", PUT, "3", self.stream, self.pending, sent, id, text, str(limit), self._kept

    def pending_of(self, id: str) -> tuple[str, ...]:
        """Return the command that asks what an id is to become."""
        return "HGET", self.pending, id

    def refused(self, error: Exception, then: str) -> RedisUnavailable:
        """Return what to raise for an error that Redis replied; then: what that means."""
        if isinstance(error, ReadOnlyError):  # demoted: the address may lead to another server now
            drop_connections(self.client)
        return RedisUnavailable(f"Redis refuses the stream {self.name!r}: {error}. {then}")

    def away(self, error: Exception, then: str) -> RedisUnavailable:
        """Return what to raise for no reply; what came from elsewhere is raised as it is."""
        seen = passed(error)
        return RedisUnavailable(
            f"Redis did not answer for the stream {self.name!r} "
            f"({type(seen).__name__}: {seen}). {then}"
        )


def entries(reply: Any) -> list[Message]:
    """Return the messages in the reply to XREADGROUP, in whichever form it comes."""
    if not reply:
        return []
    ((_, found),) = reply.items() if isinstance(reply, dict) else reply
    return [message(entry_id, fields) for entry_id, fields in found]


def message(entry_id: bytes, fields: Any, deliveries: int = 1) -> Message:
    """Return a message of the stream; where somebody else wrote it, one that cannot be applied."""
    if not isinstance(fields, dict):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    id, text = (_text(fields.get(name, b"")) for name in (b"id", b"value"))
    return Message(_text(entry_id), id, text, deliveries)


def _text(told: bytes | str) -> str:
    return told if isinstance(told, str) else told.decode("utf-8", "backslashreplace")


def held(reply: bytes | None) -> Message | None:
    """Return the write that an id waits for, from the reply to `Stream.pending_of`."""
    if reply is None:
        return None
    message_id, _, text = reply.decode().partition(" ")
    return Message(message_id, "", text)


def patience(client: Any) -> float:
    """Return the seconds that a client waits for a reply."""
    is_cluster = shards.is_cluster(client)
    settings = (
        client.get_connection_kwargs() if is_cluster else client.connection_pool.connection_kwargs
    )
    return float(settings.get("socket_timeout") or _check.LONGEST_WAIT)
