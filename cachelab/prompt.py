"""The prompt of python -m cachelab ask: users typed at a terminal, through the cache in either of its kinds."""

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
import redis.asyncio

import cachelab as cl
from cachelab import _check

ASK = "cachelab:ask:"  # what the keys of the prompt begin with


def ask(args: argparse.Namespace) -> int:
    """Ask for users at a prompt: the cache answers fast, the database slowly.

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
    from tqdm import tqdm

    sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text make a bad id, not an end
    ids = [f"user-{n}" for n in range(1, min(_check.whole("warm", args.warm, least=0), args.users) + 1)]
    client, aclient, hits = cl.connect(), cl.connect_async(), []
    with cl.UserDatabase(latency=args.latency) as db:
        options = {"ttl": args.ttl, "jitter": 0, "prefix": ASK}
        cache, acache = cl.CacheAside(client, db.get, **options), cl.AsyncCacheAside(aclient, db.get_async, **options)
        try:
            db.latency = 0  # until the prompt
            db.fill(args.users)
            for id in tqdm(ids, desc="Warming the cache", unit=" users", disable=None):
                cache.warm([id])
            if args.awaited:
                asyncio.run(db.get_async("user-1"))  # what is imported at first use is not to be timed
            db.latency = args.latency
            print(f"The database takes {args.latency:g} s for each of {args.users} users; the cache holds {len(ids)}.")
            print(f"Try user-1, and user-{len(ids) + 1} twice. Ctrl-D ends.\n")
            if args.awaited:
                asyncio.run(_converse_async(acache, aclient, ids, hits))
            else:
                _converse(cache, client, ids, hits)
        except KeyboardInterrupt:
            pass  # one of the two ways to leave
        finally:
            with suppress(redis.RedisError):  # without Redis, that is left to the ttl
                for start in range(0, len(ids), 500):
                    client.unlink(*(ASK + id for id in ids[start : start + 500]))
    rate = f", hit rate {100 * sum(hits) / len(hits):.0f} %" if hits else ""
    print(f"{chr(10) * sys.stdin.isatty()}Hits {sum(hits)}, misses {len(hits) - sum(hits)}{rate}.")
    return 0


def _converse(cache: cl.CacheAside, client: redis.Redis, ids: list[str], hits: list[bool]) -> None:
    while (id := _typed()) is not None:
        with _telling():
            ids.append(_check.identity("id", id))
            before, start = cache.stats.hits, time.perf_counter()
            value = cache.get(id)
            hits.append(_show(value, cache.stats.hits > before, time.perf_counter() - start))
            print(_left(client.pttl(ASK + id)))


async def _converse_async(
    cache: cl.AsyncCacheAside, client: redis.asyncio.Redis, ids: list[str], hits: list[bool]
) -> None:
    while (id := await _typed_async()) is not None:
        with _telling():
            ids.append(_check.identity("id", id))
            before, start = cache.stats.hits, time.perf_counter()
            value = await cache.get(id)
            hits.append(_show(value, cache.stats.hits > before, time.perf_counter() - start))
            print(_left(await client.pttl(ASK + id)))


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

    A daemon thread, unlike asyncio.to_thread's: after Ctrl-C nobody waits for a line that may never come.
    """
    loop = asyncio.get_running_loop()
    line = loop.create_future()

    def read() -> None:
        id = _typed()
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(lambda: line.done() or line.set_result(id))

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
