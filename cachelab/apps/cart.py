"""Carts: a hash for each user, item to quantity, to which Redis adds; nobody reads it to write it.

A cart lives for ttl seconds after its last change; a look at it does not prolong it. Each change
carries the name of its request, which its cart remembers for ten minutes: sent again, by a client
that got no answer or a browser whose user clicked twice, it is done once.

Two objects are touched by a merge, a guest's cart and a user's, and by a checkout, a cart and the
stock. They may lie on two nodes, so each is three steps: the lines are set aside under a name,
then taken over by whoever has not taken over that name yet, then forgotten or put back. Whoever
repeats the call, after a crash at any step, completes it.
"""

import hashlib
import uuid
from dataclasses import dataclass

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import ONCE, SENT_AGAIN, Calls, checked_prefix, named, slot_of
from cachelab.apps.stock import MOST, Stock, StockCore
from cachelab.cache.flights import to_its_end

# Items and numbers to add or, with a minus, to take out, once for each request.
CHANGE = (
    ONCE
    + """
if once(KEYS[2], ARGV[1], ARGV[3]) then
  for at = 4, #ARGV, 2 do
    if redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1]) <= 0 then
      redis.call('HDEL', KEYS[1], ARGV[at])
    end
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return tonumber(redis.call('HGET', KEYS[1], ARGV[4]) or 0)
"""
)

PUT = """
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

# Put a guest's cart aside for a user: {what the move is called, its lines}. One that was begun
# goes on, whoever it was for.
SET_ASIDE = """
local move = redis.call('GET', KEYS[3])
if not move then
  if redis.call('EXISTS', KEYS[1]) == 0 then return false end
  redis.call('RENAME', KEYS[1], KEYS[2])
  move = ARGV[1]
  redis.call('SET', KEYS[3], move, 'PX', math.max(1, redis.call('PTTL', KEYS[2])))
end
return {move, redis.call('HGETALL', KEYS[2])}
"""

FORGET = """
if redis.call('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[1], KEYS[2]) end
return 0
"""

# Put a cart aside for an order, or find what was. From here on a new cart begins.
HOLD = """
if redis.call('EXISTS', KEYS[2]) == 0 then
  if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return redis.call('HGETALL', KEYS[2])
"""

PUT_BACK = """
local lines = redis.call('HGETALL', KEYS[2])
for at = 1, #lines, 2 do redis.call('HINCRBY', KEYS[1], lines[at], lines[at + 1]) end
redis.call('DEL', KEYS[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What a checkout came to.

    Attributes:
        lines: Items and quantities that were in the cart: {} if it was empty.
        short: What there was too little of, and how many were left: {} if all were taken.
    """

    lines: dict[str, int]
    short: dict[str, int]

    @property
    def is_taken(self) -> bool:
        """Whether there was something in the cart, and all of it was taken from the stock."""
        return bool(self.lines) and not self.short


class _Core:
    """What both classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(self, calls: Calls, ttl: float, prefix: str):
        self._calls = calls
        self._ttl = str(_check.milliseconds("ttl", ttl))
        self._prefix = checked_prefix(prefix)

    async def add(self, user: str, item: str, quantity: int = 1, request: str | None = None) -> int:
        """Put so many more of an item into a cart.

        Args:
            user: Whose cart, or a guest's name for it.
            item: What goes in.
            quantity: How many, 1 to 1,000,000.
            request: What this addition is called: within ten minutes it is made once, however
                often it is sent. None for a name that tells this call from all others.

        Returns:
            How many are in the cart now.
        """
        number = _check.whole("quantity", quantity, least=1, most=MOST)
        return await self._change(user, item, str(number), request)

    async def remove(
        self, user: str, item: str, quantity: int | None = None, request: str | None = None
    ) -> int:
        """Take so many of an item out of a cart, None for all; return how many are left in it."""
        if quantity is None:
            await self.put(user, item, 0)
            return 0
        number = _check.whole("quantity", quantity, least=1, most=MOST)
        return await self._change(user, item, f"-{number}", request)

    async def put(self, user: str, item: str, quantity: int) -> None:
        """Have exactly so many of an item in a cart, 0 for none."""
        key = self._key("lines", user)
        _check.identity("item", item)
        number = _check.whole("quantity", quantity, least=0, most=MOST)
        await self._calls.script(PUT, [key], self._ttl, item, str(number))

    async def items(self, user: str) -> dict[str, int]:
        """Return what is in a cart: item to quantity."""
        lines = await self._calls.command("HGETALL", self._key("lines", user))
        return {item: int(quantity) for item, quantity in lines.items()}

    async def clear(self, user: str) -> None:
        """Empty a cart."""
        await self._calls.command("DEL", self._key("lines", user))

    async def merge(self, guest: str, user: str) -> dict[str, int]:
        """Move what is in a guest's cart into a user's, as at a log-in; quantities add up.

        It may be repeated after it broke off, and run twice at once: each line arrives once. What
        the guest adds meanwhile stays in the guest's cart, or moves, but is in one of them.

        Returns:
            What is in the user's cart now.

        Raises:
            ValueError: Both are the same.
        """
        keys = [self._key(kind, guest) for kind in ("lines", "moving", "move")]
        self._key("lines", user)
        if guest == user:
            raise ValueError(f"guest and user must be two, not {user!r} twice")
        mine, move = f"{uuid.uuid4().hex}:{user}", ""
        while move != mine and (found := await self._calls.script(SET_ASIDE, keys, mine)):
            move, lines = found
            to = move.partition(":")[2]  # another, if a move to another broke off: it ends there
            into = [self._key("lines", to), self._key("seen", to)]
            if lines:
                await self._calls.script(CHANGE, into, move, self._ttl, self._ttl, *lines)
            await self._calls.script(FORGET, keys[1:], move)
        return await self.items(user)

    async def checkout(self, user: str, order: str, stock: StockCore) -> Order:
        """Take what is in a cart from the stock: all of it, and the cart is empty, or nothing.

        It may be repeated after it broke off, with the same name, and then comes to the same.

        Args:
            user: Whose cart.
            order: What the order is called; see `AsyncStock.take`.
            stock: An `AsyncStock` that it is taken from.

        Returns:
            The lines, and what there was too little of: then the lines are in the cart again.

        Raises:
            ValueError: The name was used for another order; the cart is as it was.
        """
        _check.identity("order", order)
        if not isinstance(stock, StockCore):
            raise TypeError(f"stock must be an AsyncStock, not {stock!r:.80}")
        name = hashlib.sha256(order.encode()).hexdigest()[:32]
        keys = [self._key("lines", user), self._key(f"order:{name}", user)]
        held = await self._calls.script(HOLD, keys, self._ttl)
        lines = {item: int(number) for item, number in zip(held[::2], held[1::2], strict=True)}
        if not lines:
            return Order({}, {})
        try:
            short = await stock.take(order, lines, owner=user)
        except ValueError:
            await self._calls.script(PUT_BACK, keys, self._ttl)
            raise
        if short:
            await self._calls.script(PUT_BACK, keys, self._ttl)
        return Order(lines, short)

    async def _change(self, user: str, item: str, number: str, request: str | None) -> int:
        keys = [self._key("lines", user), self._key("seen", user)]
        _check.identity("item", item)
        name = f"r:{named(request)}"  # no move is called so
        words = (name, self._ttl, SENT_AGAIN, item, number)
        quantity: int = await self._calls.script(CHANGE, keys, *words)
        return quantity

    def _key(self, kind: str, user: str) -> str:
        return f"{self._prefix}{kind}:{slot_of(_check.identity('user', user))}:{user}"


class AsyncCart(_Core):
    """Carts in Redis, for asyncio. Redis alone has them: it should evict nothing, and keep a log.

    Args:
        client: What `connect_async` returns.
        ttl: Seconds that a cart lives after its last change.
        prefix: What every key starts with.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        ttl: float = 7 * 86_400,
        prefix: str = "cart:",
    ):
        super().__init__(Calls(client, "async"), ttl, prefix)


class Cart:
    """The twin of `AsyncCart` that blocks, with the same arguments and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        ttl: float = 7 * 86_400,
        prefix: str = "cart:",
    ):
        self._core = _Core(Calls(client, "sync"), ttl, prefix)

    def add(self, user: str, item: str, quantity: int = 1, request: str | None = None) -> int:
        """See `AsyncCart.add`."""
        return to_its_end(self._core.add(user, item, quantity, request))

    def remove(
        self, user: str, item: str, quantity: int | None = None, request: str | None = None
    ) -> int:
        """See `AsyncCart.remove`."""
        return to_its_end(self._core.remove(user, item, quantity, request))

    def put(self, user: str, item: str, quantity: int) -> None:
        """See `AsyncCart.put`."""
        to_its_end(self._core.put(user, item, quantity))

    def items(self, user: str) -> dict[str, int]:
        """See `AsyncCart.items`."""
        return to_its_end(self._core.items(user))

    def clear(self, user: str) -> None:
        """See `AsyncCart.clear`."""
        to_its_end(self._core.clear(user))

    def merge(self, guest: str, user: str) -> dict[str, int]:
        """See `AsyncCart.merge`."""
        return to_its_end(self._core.merge(guest, user))

    def checkout(self, user: str, order: str, stock: Stock) -> Order:
        """See `AsyncCart.checkout`."""
        if not isinstance(stock, Stock):
            raise TypeError(f"stock must be a Stock, not {stock!r:.80}")
        return to_its_end(self._core.checkout(user, order, stock.core))
