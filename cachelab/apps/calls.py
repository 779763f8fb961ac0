"""How the applications call Redis: written once, awaited by one twin, run to its end by the other.

An application keeps what is nowhere else, so a call that got no answer raises. What cannot be done
by one command is one script, whose keys share a slot by their hash tag, `{...}`.
"""

import hashlib
import inspect
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal

import redis
from redis.exceptions import ReadOnlyError, ResponseError

from cachelab import _check
from cachelab.cache.gate import Client
from cachelab.clients import check_client, drop_connections, foreign
from cachelab.clients.shards import Command, exchange, exchange_async, is_cluster, is_failure
from cachelab.errors import RedisUnavailable

FAILURES = (RedisUnavailable, ResponseError)  # of a call: there was no answer, or Redis refuses
SENT_AGAIN = "600000"  # milliseconds within which a request that comes again is known

# True the first time that a request is seen, by what a sorted set remembers of it for so many ms.
ONCE = """
local function once(seen, request, kept)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', seen, '-inf', now)
  if redis.call('ZADD', seen, 'NX', now + kept, request) == 0 then return false end
  redis.call('PEXPIREAT', seen, redis.call('ZRANGE', seen, -1, -1, 'WITHSCORES')[2])
  return true
end
"""


class Calls:
    """Commands and scripts to one server or to the nodes of a cluster; replies are text.

    Args:
        client: What `connect` or `connect_async` returns.
        kind: "sync" for a client that blocks: the coroutines below then never suspend.

    Raises:
        TypeError: client is of the other kind, or none.
    """

    def __init__(self, client: Client, kind: Literal["sync", "async"]):
        check_client(client, kind, "connect" if kind == "sync" else "connect_async")
        self.client: Any = client
        self._awaits = kind == "async"

    async def command(self, *words: str) -> Any:
        """Return the reply to one command.

        Raises:
            RedisUnavailable: There was no answer.
            redis.ResponseError: Redis refuses; the message says why.
        """
        try:
            reply = self.client.execute_command(*words, NEVER_DECODE=True)
            return _text(await reply if self._awaits else reply)
        except (redis.RedisError, OSError) as error:
            failure = self._failure(error)
        raise failure

    async def script(self, script: str, keys: Sequence[str], *words: str) -> Any:
        """Return what a Lua script returns; raises as `command` does."""
        return await self.command("EVAL", script, str(len(keys)), *keys, *words)

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to commands, each with its key in front, in one round trip.

        On a cluster it is one to each node that holds some. Raises the first error, as `command`
        does, when all have been sent.
        """
        if not commands:
            return []
        try:
            replies = await self._exchanged(commands)
        except (redis.RedisError, OSError) as error:
            replies = [error]
        failures = (self._failure(reply) for reply in replies if isinstance(reply, Exception))
        if failure := next(failures, None):
            raise failure
        return [_text(reply) for reply in replies]

    async def given(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function of the user's returns, awaited where the twin awaits."""
        value = function(*args)
        return await value if self._awaits else value

    def check_function(self, name: str, function: object) -> None:
        """Refuse what this twin cannot call."""
        if not callable(function):
            raise TypeError(f"{name} must be a function, not {function!r:.80}")
        if not self._awaits and inspect.iscoroutinefunction(function):
            raise TypeError(f"{name} must be a plain function, not {function!r:.80}: see the twin")

    async def _exchanged(self, commands: Sequence[Command]) -> list[Any]:
        if is_cluster(self.client):
            if self._awaits:
                return await exchange_async(self.client, commands)
            return exchange(self.client, commands)
        pipeline = self.client.pipeline(transaction=False)
        for _, words in commands:
            pipeline.execute_command(*words, NEVER_DECODE=True)
        replies = pipeline.execute(raise_on_error=False)
        return list(await replies if self._awaits else replies)

    def _failure(self, error: Exception) -> BaseException:
        """Return what the caller is to see of an error that came instead of a reply."""
        if (theirs := foreign(error)) is not None:
            return theirs
        if isinstance(error, ReadOnlyError):  # demoted: the address may lead to another by now
            drop_connections(self.client)
        elif isinstance(error, ResponseError) and not is_failure(error):
            return error
        return RedisUnavailable(
            f"Redis did not do what it was asked for, or did not say so: "
            f"{type(error).__name__}: {error}. Each call of an application may be repeated."
        )


def named(request: str | None) -> str:
    """Return what a caller calls a request, or a name that tells this one from all others."""
    return uuid.uuid4().hex if request is None else _check.identity("request", request)


def slot_of(id: str) -> str:
    """Return the hash tag of all keys of an id: of any id, for braces in one would end it early.

    >>> slot_of("ada")
    '{fdee}'
    """
    return f"{{{hashlib.sha256(id.encode()).hexdigest()[:4]}}}"


def checked_prefix(prefix: str) -> str:
    """Return a prefix of keys if it leaves their hash tag alone."""
    if {"{", "}"} & set(_check.text("prefix", prefix)):
        raise ValueError(f"prefix must hold no brace, which would tell the slot, not {prefix!r}")
    return prefix


def _text(reply: Any) -> Any:
    """Return a reply with text for bytes, also inside of lists, sets and maps."""
    if isinstance(reply, bytes):
        return reply.decode(errors="replace")
    if isinstance(reply, list):
        return [_text(one) for one in reply]
    if isinstance(reply, dict):
        return {_text(name): _text(one) for name, one in reply.items()}
    return reply
