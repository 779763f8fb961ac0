"""Experiments on what applications keep: sessions, carts, responses, feeds, what services share."""

import json
import random
from collections.abc import Iterator

from cachelab.apps.responses import Request, Response, Responses
from cachelab.apps.sessions import Sessions
from cachelab.lab.claims.bench import Bench, trial
from cachelab.lab.claims.cases import Case, counted, instead
from cachelab.lab.faults import applications
from cachelab.lab.hits import theory

HOUR, DAY = 3600, 86_400


@trial
def sessions_of_two(bench: Bench) -> list[Case]:
    """The sessions that are there after one user has logged in twice."""
    for device in ("laptop", "phone"):
        bench.client.set("by-name:ada", device, ex=HOUR)
    sessions = Sessions(bench.client, prefix="by-id:")
    sessions.logout_everywhere("ada")
    for device in ("laptop", "phone"):
        sessions.login("ada", device=device)
    return [
        counted("a key of the user's name", len(bench.client.keys("by-name:*"))),
        instead(counted("a random id each", len(sessions.devices("ada")))),
    ]


def hashed_key(path: str, params: dict[str, str]) -> str:
    """Return the key of a request as recipes make it."""
    return f"api:{path}:{hash(str(params))}"


@trial
def keys_of_one_request(bench: Bench) -> list[Case]:
    """Keys that one request has, by Python's hash and by one of all that counts."""
    params = {"page": "1", "sort": "price"}
    orders = [params, dict(reversed(params.items()))]
    responses = Responses(bench.client, lambda _: Response(200, "pens"), prefix="one-request:")
    for order in orders:
        responses.get("/pens", tenant="", params=order)
    processes = {*applications.in_new_pythons(hashed_key, "/pens", params)}
    return [
        counted("asked for by two processes", len(processes)),
        counted("its parameters in two orders", len({hashed_key("/pens", one) for one in orders})),
        instead(counted("Responses, two orders", len(bench.client.keys("one-request:*")))),
    ]


@trial
def old_in_five_minutes(bench: Bench) -> list[Case]:
    """The share of answers that are old, of an API that is read every 3 s, kept for 5 minutes.

    Reads and changes come at random moments of a clock of their own.
    """
    cases = []
    for name, between in (("a minute", 60), ("an hour", HOUR), ("a day", DAY)):
        old = [*_old_answers(reads=100_000, every=3, between=between, ttl=300)]
        model = theory.ttl_stale_share(1 / 3, 1 / between, 300)
        cases.append(counted(f"changed once {name}", sum(old) / len(old), len(old), model))
    return cases


def _old_answers(reads: int, every: float, between: float, ttl: float) -> Iterator[bool]:
    rng = random.Random(0)
    now, expires, is_old = 0.0, 0.0, False
    change = rng.expovariate(1 / between)
    for _ in range(reads):
        now += rng.expovariate(1 / every)
        while change <= now:
            change += rng.expovariate(1 / between)
            is_old = True
        if now >= expires:
            expires, is_old = now + ttl, False
        yield is_old


@trial
def posts_on_a_page(bench: Bench) -> list[Case]:
    """Posts that a reader of fifty a page gets, after another one of twenty."""

    bench.client.delete("feed:ada:1", "feed:ada:1:20", "feed:ada:1:50")

    def page(key: str, limit: int) -> list[str]:
        if (text := bench.client.get(key)) is None:
            text = json.dumps([f"post-{number}" for number in range(limit)])
            bench.client.set(key, text, ex=60)
        return json.loads(text)

    found = {}
    for name, key in (("user and page", "feed:ada:1"), ("user, page and limit", "feed:ada:1:{}")):
        found[name] = [len(page(key.format(limit), limit)) for limit in (20, 50)][-1]
    return [
        counted("user and page", found["user and page"]),
        instead(counted("user, page and limit", found["user, page and limit"])),
    ]


@trial
def left_of_a_cart(bench: Bench) -> list[Case]:
    """Seconds that a cart has left that was filled 23 hours ago, after something is added."""
    bench.client.set("old-cart:ada", '{"pen": 1}', ex=HOUR)
    bench.client.delete("old-lines:ada")
    bench.client.hset("old-lines:ada", "pen", 1)
    bench.client.expire("old-lines:ada", HOUR)
    bench.client.set("old-cart:ada", '{"pen": 2}', ex=DAY)
    bench.client.hincrby("old-lines:ada", "pen", 1)
    bench.client.expire("old-lines:ada", DAY, nx=True)
    return [
        counted("SET with the whole cart", bench.client.ttl("old-cart:ada")),
        instead(counted("HINCRBY, EXPIRE NX", bench.client.ttl("old-lines:ada"))),
    ]


@trial
def pens_of_two(bench: Bench) -> list[Case]:
    """How many of product 5 a cart has, into which it was put twice."""
    bench.client.delete("number-cart:ada", "number-lines:ada")
    for _ in range(2):
        cart = json.loads(bench.client.get("number-cart:ada") or "{}")
        cart[5] = cart.get(5, 0) + 1
        bench.client.set("number-cart:ada", json.dumps(cart), ex=60)
        bench.client.hincrby("number-lines:ada", 5, 1)
    return [
        counted("JSON", json.loads(bench.client.get("number-cart:ada"))["5"]),
        instead(counted("HINCRBY", int(bench.client.hget("number-lines:ada", "5")))),
    ]


@trial
def answers_understood(bench: Bench) -> list[Case]:
    """Of two services that share a cache, those that get a price in the form that they expect."""
    bench.client.delete("shared:pen")
    forms = {"shop": '{"price": 7}', "invoices": '{"price": {"cents": 700}}'}

    def shared(service: str) -> str:
        if not (text := bench.client.get("shared:pen")):
            bench.client.set("shared:pen", text := forms[service], ex=60)
        return text

    def own(service: str) -> str:
        def fetch(_: Request) -> Response:
            return Response(200, forms[service])

        cache = Responses(bench.client, fetch, version=service, prefix=f"{service}:")
        return cache.get("/pen", tenant="").body

    told, apart = (sum(read(one) == forms[one] for one in forms) for read in (shared, own))
    return [
        counted("one key for both", told),
        instead(counted("a prefix and a version each", apart)),
    ]
