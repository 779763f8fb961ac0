"""Stock: what is left of each item, taken for a whole order in one step or not at all.

What is left is one hash and lies in one slot with a record of each order, so one script looks at
all lines, takes all or none and writes down which. An order has one outcome: who repeats the call
gets it again, and takes nothing a second time. The counts are here alone and never expire: they
want a server that evicts nothing and keeps a log.
"""

import json
from collections.abc import Iterable, Mapping

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import ONCE, SENT_AGAIN, Calls, checked_prefix, named, slot_of
from cachelab.cache.codec import from_json
from cachelab.cache.flights import to_its_end

MOST = 10**6  # of one item in one call
MOST_LINES = 1000  # of one call

# The order's lines, and on the next line what it was short of: {} where all were taken.
TAKE = """
local known = redis.call('GET', KEYS[2])
if known then
  local cut = known:find('\\n', 1, true)
  if known:sub(1, cut - 1) ~= ARGV[1] then return false end
  return known:sub(cut + 1)
end
local short, is_short = {}, false
for at = 3, #ARGV, 2 do
  local left = redis.call('HGET', KEYS[1], ARGV[at]) or '0'
  if tonumber(left) < tonumber(ARGV[at + 1]) then short[ARGV[at]], is_short = left, true end
end
for at = 3, is_short and 0 or #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[at], '-' .. ARGV[at + 1])
end
redis.call('SET', KEYS[2], ARGV[1] .. '\\n' .. cjson.encode(short), 'PX', ARGV[2])
return cjson.encode(short)
"""

GIVE_BACK = """
local known = redis.call('GET', KEYS[2])
local lines = known and known:match('^(.*)\\n{}$')
if not lines then return 0 end
for item, quantity in pairs(cjson.decode(lines)[2]) do
  redis.call('HINCRBY', KEYS[1], item, quantity)
end
redis.call('SET', KEYS[2], lines .. '\\ngiven back', 'KEEPTTL')
return 1
"""

ADD = (
    ONCE
    + """
if once(KEYS[2], ARGV[3], ARGV[4]) then redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) end
return tonumber(redis.call('HGET', KEYS[1], ARGV[1]))
"""
)


class StockCore:
    """What both classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(self, calls: Calls, name: str, keep: float, prefix: str):
        self._calls = calls
        _check.identity("name", name)
        self._prefix = f"{checked_prefix(prefix)}{slot_of(name)}:"
        self._left = f"{self._prefix}left:{name}"
        self._name = name
        self._keep = str(_check.milliseconds("keep", keep))

    async def add(self, item: str, quantity: int, request: str | None = None) -> int:
        """Put so many of an item in stock, as when a delivery arrives.

        Args:
            item: What it is.
            quantity: How many, 1 to 1,000,000.
            request: What the delivery is called: within ten minutes it is added once, however
                often it is sent. None for a name that tells this call from all others.

        Returns:
            How many are left now.
        """
        _check.identity("item", item)
        number = str(_check.whole("quantity", quantity, least=1, most=MOST))
        request = named(request)
        keys = [self._left, f"{self._prefix}seen:{self._name}"]
        left: int = await self._calls.script(ADD, keys, item, number, request, SENT_AGAIN)
        return left

    async def left(self, items: Iterable[str]) -> dict[str, int]:
        """Return how many are left of each item: 0 where it was never in stock."""
        names = list(dict.fromkeys(_check.several("items", items)))
        for item in names:
            _check.identity("item", item)
        if not names:
            return {}
        counts = await self._calls.command("HMGET", self._left, *names)
        return {item: int(count or 0) for item, count in zip(names, counts, strict=True)}

    async def take(self, order: str, lines: Mapping[str, int], owner: str = "") -> dict[str, int]:
        """Take all lines of an order, or none if there is too little of one.

        Args:
            order: What the order is called. It has one outcome, which a repeated call gets again;
                who tries again when there is more in stock needs another name.
            lines: Items, and how many of each.
            owner: Whose order it is.

        Returns:
            {} if all were taken; else what there is too little of, and how many were left of it.

        Raises:
            ValueError: The name was used for other lines or by another owner, or the order was
                given back.
        """
        _check.identity("order", order)
        checked = checked_lines(lines)
        text = json.dumps([_check.text("owner", owner), checked], sort_keys=True)
        words = [word for item in checked for word in (item, str(checked[item]))]
        keys = [self._left, self._record(order)]
        outcome = await self._calls.script(TAKE, keys, text, self._keep, *words)
        if outcome is None or outcome == "given back":
            used = "was given back" if outcome else "is the name of another order"
            raise ValueError(f"order {order!r} {used}: an order needs a name of its own")
        return {item: int(left) for item, left in from_json(outcome).items()}

    async def give_back(self, order: str) -> bool:
        """Put the lines of an order back, once; return whether there was something to put back."""
        _check.identity("order", order)
        return bool(await self._calls.script(GIVE_BACK, [self._left, self._record(order)]))

    def _record(self, order: str) -> str:
        return f"{self._prefix}order:{len(self._name)}:{self._name}:{order}"


class AsyncStock(StockCore):
    """What is left of each item, for asyncio.

    Args:
        client: What `connect_async` returns.
        name: Which stock: all of one lies in one slot.
        keep: Seconds that the outcome of an order is remembered.
        prefix: What every key starts with.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        name: str = "shop",
        keep: float = 7 * 86_400,
        prefix: str = "stock:",
    ):
        super().__init__(Calls(client, "async"), name, keep, prefix)


class Stock:
    """The twin of `AsyncStock` that blocks, with the same arguments and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        name: str = "shop",
        keep: float = 7 * 86_400,
        prefix: str = "stock:",
    ):
        self.core = StockCore(Calls(client, "sync"), name, keep, prefix)

    def add(self, item: str, quantity: int, request: str | None = None) -> int:
        """See `AsyncStock.add`."""
        return to_its_end(self.core.add(item, quantity, request))

    def left(self, items: Iterable[str]) -> dict[str, int]:
        """See `AsyncStock.left`."""
        return to_its_end(self.core.left(items))

    def take(self, order: str, lines: Mapping[str, int], owner: str = "") -> dict[str, int]:
        """See `AsyncStock.take`."""
        return to_its_end(self.core.take(order, lines, owner))

    def give_back(self, order: str) -> bool:
        """See `AsyncStock.give_back`."""
        return to_its_end(self.core.give_back(order))


def checked_lines(lines: Mapping[str, int]) -> dict[str, int]:
    """Return lines of an order, in the order of their items, if they are some."""
    if not isinstance(lines, Mapping):
        raise TypeError(f"lines must be a mapping of items to quantities, not {lines!r:.80}")
    if not 0 < len(lines) <= MOST_LINES:
        raise ValueError(f"lines must be 1 to {MOST_LINES} items, not {len(lines)}")
    for item in lines:
        _check.identity("item", item)
    return {
        item: _check.whole(f"the quantity of {item!r}", lines[item], least=1)
        for item in sorted(lines)
    }
