"""python -m cachelab ask: users typed at a terminal, through the cache in either of its kinds."""

import argparse
import asyncio
import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import redis

import cachelab as cl
from cachelab import _check
from cachelab._extras import need

HELP = """
Ask for users at a prompt: the cache answers fast, the database slowly.

Fills the database, warms the cache with a part of the users, then prompts:
type a user id, see its value, hit or miss, and how long it took. Who was not
in the cache is a miss once, then a hit. With --async, cache and database are
awaited, and input() waits in a thread, so that the event loop stays free.
Ctrl-D or Ctrl-C ends it and removes its keys (cachelab:ask:...).

examples:
  python -m cachelab ask
  python -m cachelab ask --async --latency 0.5 --ttl 10
  echo user-1 | python -m cachelab ask
"""
ENVIRONMENT = ("redis", "database")
ASK = "cachelab:ask:"  # what the keys of the prompt begin with


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option("--async", dest="awaited", action="store_true", help="await the cache and the database")
    option(
        "--users",
        type=int,
        default=1000,
        metavar="N",
        help="users in the database (default: %(default)s)",
    )
    option(
        "--latency",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds it takes to answer (default: %(default)s)",
    )
    option(
        "--warm",
        type=int,
        default=500,
        metavar="N",
        help="of them in the cache at first (default: %(default)s)",
    )
    option(
        "--ttl",
        type=float,
        default=60,
        metavar="S",
        help="seconds that the cache keeps a user (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Fill the database, warm the cache, prompt until the end of input."""
    users = _check.whole("users", args.users, least=0)
    warm = min(_check.whole("warm", args.warm, least=0), users)
    need("ask", "lab")
    from tqdm import tqdm

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text make a bad id
    ids = [f"user-{n}" for n in range(1, warm + 1)]
    hits: list[bool] = []
    client = cl.connect()
    with cl.UserDatabase(latency=args.latency) as db:
        talk = (_Awaited if args.awaited else _Blocking)(args.ttl, db)
        try:
            db.latency = 0  # until the prompt
            db.fill(users)
            talk.warm(tqdm(ids, desc="Warming the cache", unit=" users", disable=None))
            db.latency = args.latency
            print(
                f"The database takes {args.latency:g} s for each of {users} users; "
                f"the cache holds {warm}.\n{_advice(users, warm)} Ctrl-D ends.\n"
            )
            with _line_editing():
                talk.converse(ids, hits)
        except KeyboardInterrupt:
            pass  # one of the two ways to leave
        finally:
            with suppress(redis.RedisError):  # without Redis, that is left to the ttl
                for start in range(0, len(ids), 500):
                    client.unlink(*(ASK + id for id in ids[start : start + 500]))
    rate = f", hit rate {100 * sum(hits) / len(hits):.0f} %" if hits else ""
    line = "\n" if sys.stdin.isatty() else ""
    print(f"{line}Hits {sum(hits)}, misses {len(hits) - sum(hits)}{rate}.")
    return 0


def _advice(users: int, warm: int) -> str:
    """Return what to type to see a hit and a miss.

    >>> _advice(1000, 500)
    'Try user-1, and user-501 twice.'
    >>> _advice(10, 10)
    'Try user-1, and nobody twice.'
    """
    missed = f"user-{warm + 1}" if warm < users else "nobody"
    return f"Try user-1, and {missed} twice." if warm else f"Try {missed} twice."


class _Blocking:
    """The prompt on the synchronous cache."""

    def __init__(self, ttl: float, db: "cl.UserDatabase") -> None:
        self.client = cl.connect()
        self.cache = cl.CacheAside(self.client, db.get, ttl=ttl, jitter=0, prefix=ASK)

    def warm(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.cache.warm([id])

    def converse(self, ids: list[str], hits: list[bool]) -> None:
        while (id := _typed()) is not None:
            with _telling():
                ids.append(_check.identity("id", id))
                before, start = self.cache.stats.hits, time.perf_counter()
                value = self.cache.get(id)
                seconds = time.perf_counter() - start
                hits.append(_show(value, self.cache.stats.hits > before, seconds))
                print(_left(self.client.pttl(ASK + id)))


class _Awaited:
    """The same, awaited: each call has an event loop of its own."""

    def __init__(self, ttl: float, db: "cl.UserDatabase") -> None:
        self.db = db
        self.client = cl.connect_async()
        self.cache = cl.AsyncCacheAside(self.client, db.get_async, ttl=ttl, jitter=0, prefix=ASK)

    def warm(self, ids: Iterable[str]) -> None:
        asyncio.run(self._warm(ids))

    def converse(self, ids: list[str], hits: list[bool]) -> None:
        asyncio.run(self._converse(ids, hits))

    async def _warm(self, ids: Iterable[str]) -> None:
        await self.db.get_async("user-1")  # what is imported at first use is not to be timed
        for id in ids:
            await self.cache.warm([id])

    async def _converse(self, ids: list[str], hits: list[bool]) -> None:
        while (id := await _typed_async()) is not None:
            with _telling():
                ids.append(_check.identity("id", id))
                before, start = self.cache.stats.hits, time.perf_counter()
                value = await self.cache.get(id)
                seconds = time.perf_counter() - start
                hits.append(_show(value, self.cache.stats.hits > before, seconds))
                print(_left(await self.client.pttl(ASK + id)))


@contextmanager
def _line_editing() -> Iterator[None]:
    """Let arrow keys edit what is typed and bring back earlier ids, where readline is there.

    What input() in a thread leaves behind when Ctrl-C ends the program is a terminal that shows no
    letters: its settings are put back.
    """
    try:
        import readline
        import termios
    except ImportError:
        yield
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    readline.parse_and_bind("set enable-bracketed-paste off")
    kept = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, kept)


def _typed() -> str | None:
    """Return the next id that is typed, None at the end of input."""
    stdin = sys.stdin  # a reference: if the last one goes while a thread still reads, Python aborts
    with suppress(EOFError, OSError):
        while True:
            if id := input("user id> " if stdin.isatty() else "").strip():
                return id
    return None


async def _typed_async() -> str | None:
    """Await the next id: input() blocks, so it waits in a thread, and the event loop goes on.

    A daemon thread, unlike asyncio.to_thread's: after Ctrl-C nobody waits for a line that may
    never come.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def tell(id: str | None) -> None:
        if not line.done():
            line.set_result(id)

    def read() -> None:
        id = _typed()
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(tell, id)

    threading.Thread(target=read, daemon=True).start()
    return await line


@contextmanager
def _telling() -> Iterator[None]:
    """Tell an error in a line, and go on."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except redis.RedisError:
        print("Redis does not answer")
    except (cl.CachelabError, ValueError, SQLAlchemyError) as error:
        print(f"  {str(error).splitlines()[0]}")


def _show(value: str | None, hit: bool, seconds: float) -> bool:
    name = "no such user" if value is None else value
    print(f"  {name:<14} {'hit' if hit else 'miss':<4} {1000 * seconds:>10.2f} ms   ", end="")
    return hit


def _left(milliseconds: int) -> str:
    return f"kept for {milliseconds / 1000:.1f} s more" if milliseconds > 0 else "not kept"
