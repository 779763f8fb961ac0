"""Limits, responses and sessions beside well-kept libraries for the same job.

    make setup EXTRAS=benchmarks
    .venv/bin/python benchmarks/apps.py    ten seconds or so; writes apps.csv and .json

Rows of the table: job, library, measure, value. Commands are those that a client sends, without
what a script calls; keys are those that 100 callers, responses or sessions leave, and `for_ever`
those of them that never expire. Times are of one call on loopback, in turn with the other
libraries of the job in each round; CONFIGURATION says what each of them does within it.
"""

import argparse
import asyncio
import importlib.metadata
import itertools
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import limits
import pandas as pd
import redis
import redis.asyncio
from hishel import AsyncRedisStorage
from hishel.httpx import AsyncCacheTransport
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware
from starsessions.stores.redis import RedisStore

import cachelab as cl
from cachelab.apps.limiter import SlidingWindow, TokenBucket
from cachelab.apps.responses import AsyncResponses, Response
from cachelab.apps.sessions import AsyncSessions
from cachelab.lab import timing
from cachelab.lab.draw import figures

FOLDER = Path(__file__).parent
LIMIT, WINDOW = 10, 10  # calls, seconds
AHEAD = 30  # seconds that a caller's clock is ahead
BODY = "x" * 1000
ROUNDS = 300

CONFIGURATION = {
    "SlidingWindow": f"limit {LIMIT}, window {WINDOW} s, plain client",
    "TokenBucket": f"burst {LIMIT}, rate {LIMIT / WINDOW:g} a second, plain client",
    "limits, moving window": f"RedisStorage, {LIMIT} per {WINDOW} s",
    "limits, fixed window": f"RedisStorage, {LIMIT} per {WINDOW} s",
    "AsyncResponses": "ttl 300 s; a call is get() of the cache",
    "hishel": "AsyncCacheTransport of httpx, AsyncRedisStorage, default policy; "
    "a call is client.get() of httpx",
    "hishel, rfc=True": "the same by RFC 9111; the origin says public, max-age=300, "
    "Vary: Authorization",
    "AsyncSessions": "ttl 1800 s; a call is a request to a Starlette application through httpx",
    "starsessions": "RedisStore, lifetime 1800 s, rolling, loaded by its middleware; "
    "a call is a request to a Starlette application through httpx",
}

Measures = dict[str, float]


async def sent(url: str, run: Callable[[], Awaitable[object]]) -> int:
    """Return how many commands clients send while something runs."""
    client, watcher = redis.Redis.from_url(url), redis.Redis.from_url(url)
    client.ping()  # connected before anybody watches
    count = 0
    with watcher.monitor() as monitor:
        await run()
        client.echo("the end")
        for told in monitor.listen():
            if "the end" in told["command"]:
                break
            count += told["client_type"] != "lua"
    client.close(), watcher.close()
    return count


def left(url: str) -> Measures:
    """Return how many keys there are, and how many of them never expire; then delete them."""
    client = redis.Redis.from_url(url)
    lives = [client.pttl(key) for key in client.keys()]
    client.flushall()
    client.close()
    return {"keys": len(lives), "for_ever": lives.count(-1)}


async def times(calls: dict[str, Callable[[], object]]) -> dict[str, Measures]:
    """Return percentiles of the calls, in microseconds, taken in turn."""
    summary = timing.summary(await timing.compare_async(calls, rounds=ROUNDS))
    return {name: {f"{p}_us": 1e6 * summary.at[name, p] for p in ("p50", "p95")} for name in calls}


# Limits


def limiters(url: str) -> dict[str, Callable[[str], bool]]:
    client, storage = cl.connect(url, timeout=10), RedisStorage(url)
    window, bucket = (
        SlidingWindow(client, LIMIT, WINDOW),
        TokenBucket(client, LIMIT / WINDOW, LIMIT),
    )
    item = limits.parse(f"{LIMIT} per {WINDOW} second")
    moving, fixed = MovingWindowRateLimiter(storage), FixedWindowRateLimiter(storage)
    return {
        "SlidingWindow": lambda id: window.take(id).is_allowed,
        "TokenBucket": lambda id: bucket.take(id).is_allowed,
        "limits, moving window": lambda id: moving.hit(item, id),
        "limits, fixed window": lambda id: fixed.hit(item, id),
    }


def crowd(take: Callable[[str], bool], callers: int = 40) -> int:
    """Return how many of a crowd pass."""
    passed: list[bool] = []
    start = threading.Barrier(callers)

    def one() -> None:
        start.wait()
        passed.append(take("crowd"))

    threads = [threading.Thread(target=one) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(passed)


def with_a_clock_ahead(take: Callable[[str], bool]) -> int:
    """Return how many calls pass when a second caller, whose clock is ahead, comes too."""
    real, passed = time.time, 0
    for ahead in (0, AHEAD):
        time.time = lambda ahead=ahead: real() + ahead
        try:
            passed += sum(take("clock") for _ in range(LIMIT))
        finally:
            time.time = real
    return passed


async def limiting(url: str) -> dict[str, Measures]:
    found = {}
    libraries = limiters(url)
    for name, take in libraries.items():
        take("warm")

        async def several(take: Callable[[str], bool] = take) -> None:
            for n in range(10):
                take(f"caller-{n}")

        commands = await sent(url, several) / 10
        left(url)
        for n in range(100):
            take(f"caller-{n}")
        found[name] = {"commands": commands} | left(url)
        found[name]["passed_of_10_allowed"] = crowd(take)
        found[name]["passed_with_a_clock_ahead"] = with_a_clock_ahead(take)
        left(url)
    ids = itertools.count()
    calls = {name: lambda take=take: take(f"timed-{next(ids)}") for name, take in libraries.items()}
    return merged(found, await times(calls))


# Responses


class Origin:
    """An origin that answers by who asks, and counts."""

    def __init__(self) -> None:
        self.requests = 0
        self.status = 200
        self.seconds = 0.0

    async def answer(self, who: str) -> tuple[int, str]:
        self.requests += 1
        status = self.status
        await asyncio.sleep(self.seconds)
        return status, f"{who} {BODY}"


Get = Callable[..., Awaitable[tuple[int, str]]]


def responders(url: str, origin: Origin) -> dict[str, Get]:
    async def fetch(request) -> Response:
        return Response(*await origin.answer(request.tenant))

    responses = AsyncResponses(cl.connect_async(url, timeout=10), fetch)

    async def ours(params: dict[str, str], who: str = "ada") -> tuple[int, str]:
        response = await responses.get("/users", who, params)
        return response.status, response.body

    async def handle(request: httpx.Request) -> httpx.Response:
        status, body = await origin.answer(request.headers["authorization"])
        told = {"Cache-Control": "public, max-age=300", "Vary": "Authorization"}
        return httpx.Response(status, text=body, headers=told if status == 200 else {})

    def through_hishel(prefix: str, **options: object) -> Get:
        connection = redis.asyncio.Redis.from_url(url)
        storage = AsyncRedisStorage(connection, key_prefix=prefix, default_ttl=300)
        transport = AsyncCacheTransport(httpx.MockTransport(handle), storage, **options)
        client = httpx.AsyncClient(transport=transport, base_url="http://origin")

        async def get(params: dict[str, str], who: str = "ada") -> tuple[int, str]:
            response = await client.get("/users", params=params, headers={"Authorization": who})
            return response.status_code, response.text

        return get

    return {
        "AsyncResponses": ours,
        "hishel": through_hishel("hishel"),
        "hishel, rfc=True": through_hishel("rfc", rfc=True),
    }


async def responding(url: str) -> dict[str, Measures]:
    found = {}
    origin = Origin()
    libraries = responders(url, origin)
    for name, get in libraries.items():
        await get({"page": "warm"})
        hits = {"commands": await sent(url, lambda get=get: get({"page": "warm"}))}
        left(url)
        for page in range(100):
            await get({"page": str(page)})
        kept = left(url)
        origin.requests, origin.seconds = 0, 0.1
        await asyncio.gather(*(get({"page": "cold"}) for _ in range(50)))
        cold, origin.requests, origin.seconds = origin.requests, 0, 0.0
        await get({"a": "1", "b": "2"}), await get({"b": "2", "a": "1"})
        ordered, origin.status = origin.requests, 503
        await get({"page": "away"})
        origin.status = 200
        again, _ = await get({"page": "away"})
        accounts = [(who, await get({"page": "account"}, who)) for who in ("ada", "bob")]
        found[name] = hits | kept
        found[name] |= {
            "origin_requests_of_50_cold": cold,
            "origin_requests_of_2_orders": ordered,
            "errors_kept": again == 503,
            "others_data": sum(not body.startswith(who) for who, (_, body) in accounts),
        }
        left(url)
    for get in libraries.values():
        await get({"page": "timed"})
    calls = {name: lambda get=get: get({"page": "timed"}) for name, get in libraries.items()}
    return merged(found, await times(calls))


# Sessions


def application(url: str, is_ours: bool, barrier: asyncio.Barrier) -> Starlette:
    """Return a web application whose pages log in, read a session, and change one field of it."""
    sessions = AsyncSessions(cl.connect_async(url, timeout=10), ttl=1800)

    async def login(request: Request) -> JSONResponse:
        if not is_ours:
            request.session["user"] = "ada"
            return JSONResponse({})
        answer = JSONResponse({})
        answer.set_cookie("session", (await sessions.login("ada")).id)
        return answer

    async def read(request: Request) -> JSONResponse:
        if is_ours:
            session = await sessions.get(request.cookies["session"])
            return JSONResponse(session.data if session else {})
        return JSONResponse({n: v for n, v in request.session.items() if n != "user"})

    async def change(request: Request) -> JSONResponse:
        name = request.query_params["name"]
        if is_ours:
            await sessions.get(request.cookies["session"])
        await barrier.wait()  # all have read
        if is_ours:
            await sessions.update(request.cookies["session"], {name: 1})
        else:
            request.session[name] = 1
        return JSONResponse({})

    store = RedisStore(connection=redis.asyncio.Redis.from_url(url))
    theirs = [
        Middleware(SessionMiddleware, store=store, lifetime=1800, rolling=True),
        Middleware(SessionAutoloadMiddleware),
    ]
    routes = [Route("/login", login), Route("/read", read), Route("/change", change)]
    return Starlette(routes=routes, middleware=[] if is_ours else theirs)


async def keeping_sessions(url: str) -> dict[str, Measures]:
    found, calls = {}, {}
    writers = 20
    for name in ("AsyncSessions", "starsessions"):
        app = application(url, name == "AsyncSessions", asyncio.Barrier(writers))

        def browser(app: Starlette = app) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app)
            return httpx.AsyncClient(transport=transport, base_url="https://shop")

        one = browser()
        await one.get("/login")
        await one.get("/read")
        commands = await sent(url, lambda one=one: one.get("/read"))
        changes = [one.get("/change", params={"name": f"field-{n}"}) for n in range(writers)]
        await asyncio.gather(*changes)
        lost = writers - len((await one.get("/read")).json())
        left(url)
        for _ in range(100):
            await browser().get("/login")
        found[name] = {"commands": commands} | left(url) | {"fields_lost_of_20": lost}
        await one.get("/login")
        calls[name] = lambda one=one: one.get("/read")
    for name in calls:
        left(url)
        await calls[name]()
    return merged(found, await times(calls))


def merged(found: dict[str, Measures], timed: dict[str, Measures]) -> dict[str, Measures]:
    return {name: found[name] | timed[name] for name in found}


JOBS = {"limiter": limiting, "responses": responding, "sessions": keeping_sessions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=FOLDER, help="where the two files go")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)  # hishel logs each response that it could not store
    rows = []
    with cl.Server() as server:
        for job in args.jobs:
            for library, measures in asyncio.run(JOBS[job](server.url)).items():
                told = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
                print(f"{job:10} {library:22} {told}", flush=True)
                rows += [(job, library, name, float(value)) for name, value in measures.items()]
        cl.connect(server.url)
        environment = figures.environment()
    frame = pd.DataFrame(rows, columns=["job", "library", "measure", "value"])
    frame.to_csv(args.into / "apps.csv", index=False, float_format="%.4g", lineterminator="\n")
    packages = ("redis", "hiredis", "limits", "hishel", "starsessions", "starlette", "httpx")
    facts = {
        "configuration": CONFIGURATION,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "environment": environment,
    }
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    (args.into / "apps.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
