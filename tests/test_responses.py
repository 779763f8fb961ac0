"""Responses of an API: keys that two processes share and no two users do, and one request a miss.

The common recipe caches whatever came back at `api:<endpoint>:<hash of the parameters>`.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from test_server import eventually

import cachelab as cl
from cachelab.apps.responses import AsyncResponses, Request, Response, Responses


class Origin:
    """The other side: it says what it was asked, and how often it was asked anything."""

    def __init__(self):
        self.requests = []
        self.answer = Response()  # its body is made from the request where it has none
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def fetch(self, request: Request) -> Response:
        self.requests.append(request)
        self.entered.set()
        self.go_on.wait(60)
        parts = [request.tenant, request.method, request.path, request.params, request.headers]
        return replace(self.answer, body=self.answer.body or json.dumps(parts))


@pytest.fixture
def origin():
    return Origin()


@pytest.fixture
def make(server, client, origin, monkeypatch):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 20.0)  # for crowds on a busy machine

    def make(url=server.url, fetch=origin.fetch, **options):
        return Responses(cl.connect(url, timeout=10), fetch, **options)

    return make


@pytest.fixture
def responses(make):
    return make(ttl=60)


@contextlib.contextmanager
def open_when_all_have_missed(event, responses, readers):
    """Set an event when so many readers have missed: each waits, or is about to."""
    event.clear()

    def work():
        eventually(lambda: responses.stats.misses == readers, seconds=30)
        event.set()

    opener = threading.Thread(target=work)
    opener.start()
    try:
        yield
    finally:
        opener.join()


class Recipe:
    """As tutorials have it."""

    def __init__(self, client, fetch, meanwhile=lambda: None):
        self.client, self.fetch, self.meanwhile = client, fetch, meanwhile

    def get(self, endpoint, params):
        key = f"api:{endpoint}:{hash(str(params))}"
        if text := self.client.get(key):
            return text
        self.meanwhile()
        text = self.fetch(Request("GET", endpoint, tuple(params.items()), "", ())).body
        self.client.set(key, text, ex=300)
        return text


def test_a_response_comes_back_and_is_kept(responses, origin, client):
    first = responses.get("/users", "acme", {"page": 2})
    assert first.status == 200 and json.loads(first.body)[2:4] == ["/users", [["page", "2"]]]
    assert responses.get("/users", "acme", {"page": "2"}) == first and len(origin.requests) == 1
    (key,) = client.keys()
    assert 0 < client.pttl(key) <= 60_000 and "acme" not in key
    responses.invalidate("/users", "acme", {"page": 2})
    assert client.dbsize() == 0 and responses.get("/users", "acme", {"page": 2}) == first
    assert len(origin.requests) == 2


def test_fifty_cold_readers_make_one_request_and_by_the_recipe_fifty(
    responses, origin, client, together
):
    with open_when_all_have_missed(origin.go_on, responses, 50):
        outcomes = together(50, responses.get, "/users", "acme")
    assert len(set(one.body for one in outcomes)) == 1 and len(origin.requests) == 1
    recipe = Recipe(client, origin.fetch, threading.Barrier(50).wait)
    together(50, recipe.get, "/users", {})
    assert len(origin.requests) == 51


PROGRAM = """
import sys
import cachelab as cl
from cachelab.apps.responses import Response, Responses
asked = []
client = cl.connect(sys.argv[1], timeout=10)
responses = Responses(client, lambda request: asked.append(request) or Response(body="x"))
several = [{"page": str(n), "sort": "name"} for n in range(20)]
for params in several:
    responses.get("/users", "acme", params, {"Accept-Language": "en"})
print(len(asked), *(hash(str(params)) for params in several))
"""


def test_two_processes_share_every_key_and_of_those_made_by_hash_none(server, client):
    told = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PROGRAM, server.url]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        told.append(done.stdout.split())
    (first, *keys), (second, *others) = told
    assert (first, second) == ("20", "0") and client.dbsize() == 20
    assert len(keys) == 20 and set(keys) & set(others) == set()


def test_the_order_of_parameters_makes_no_second_key_and_by_the_recipe_it_does(
    responses, origin, client
):
    for params in ({"a": 1, "b": [1, 2]}, [("b", "1"), ("a", 1), ("b", "2")]):
        responses.get("/users", "acme", params)
    assert len(origin.requests) == 1
    responses.get("/users", "acme", {"a": 1, "b": [2, 1]})  # of one name their order may count
    assert len(origin.requests) == 2
    recipe = Recipe(client, origin.fetch)
    recipe.get("/users", {"a": "1", "b": "2"}), recipe.get("/users", {"b": "2", "a": "1"})
    assert len(origin.requests) == 4


APART = [
    {},
    {"tenant": "bob"},
    {"tenant": ""},
    {"path": "/users/"},
    {"path": "/Users"},
    {"path": "/users%2f"},
    {"method": "HEAD"},
    {"params": {"a": "1", "b": "2"}},
    {"params": {"a": "1&b=2"}},
    {"params": {"a": '1", "b'}},
    {"params": {"a": ""}},
    {"params": {"a": ["", ""]}},
    {"params": {"a": "é"}},
    {"params": {"a": "e\u0301"}},
    {"params": {"": "a"}},
    {"headers": {"Accept-Language": "en"}},
    {"headers": {"accept-language": "de"}},
    {"tenant": "ada\r\nFLUSHALL\r\n"},
    {"tenant": "ada}", "path": "/{*}"},
]


def test_requests_that_differ_are_kept_apart(make, origin):
    responses = make(vary=["Accept-Language"])
    asked = [{"path": "/users", "tenant": "ada"} | one for one in APART]
    first = [responses.get(**one) for one in asked]
    assert len(origin.requests) == len(APART) == len({one.body for one in first})
    assert [responses.get(**one) for one in asked] == first
    assert len(origin.requests) == len(APART)


def test_without_the_tenant_in_its_key_one_users_data_reach_another(client):
    """The control: what an origin answers is not in the parameters alone."""
    for tenant in ("ada", "bob"):
        recipe = Recipe(client, lambda _, tenant=tenant: Response(body=f"of {tenant}"))
        assert recipe.get("/account", {}) == "of ada"


def test_what_is_not_in_the_key_does_not_reach_the_origin(make, origin):
    responses = make(vary=["Accept-Language"])
    for token in ("ada's", "bob's"):
        headers = {"Authorization": token, "ACCEPT-LANGUAGE": " en "}
        responses.get("/users", "", headers=headers)
    (request,) = origin.requests
    assert request.headers == (("accept-language", "en"),)


def test_two_users_never_see_each_other(server, client, monkeypatch):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 20.0)

    async def main():
        aclient = cl.connect_async(server.url, timeout=10)

        async def fetch(request):
            asked.append(request)
            await asyncio.sleep(0)
            return Response(body=request.tenant)

        responses = AsyncResponses(aclient, fetch)
        users = ["ada", "bob"] * 250
        found = await asyncio.gather(*(responses.get("/account", user) for user in users))
        await aclient.connection_pool.disconnect()
        return [one.body for one in found] == users

    asked = []
    assert asyncio.run(main()) and len(asked) == 2


# What is not kept


@pytest.mark.parametrize("status", [201, 204, 301, 404, 429, 500, 503])
def test_an_error_reaches_its_readers_and_is_not_kept_and_by_the_recipe_it_is(
    responses, origin, client, status
):
    origin.answer = Response(status, "away")
    assert responses.get("/users", "acme").status == status
    assert client.dbsize() == 0
    recipe = Recipe(client, origin.fetch)
    assert recipe.get("/users", {}) == "away"
    origin.answer = Response(body="back")
    assert responses.get("/users", "acme").body == "back" and recipe.get("/users", {}) == "away"


def test_fifty_readers_of_an_error_make_a_request_or_two(responses, origin, together):
    origin.answer = Response(503, "away", {"Retry-After": "1"})
    with open_when_all_have_missed(origin.go_on, responses, 50):
        outcomes = together(50, responses.get, "/users", "acme")
    assert outcomes == [Response(503, "away", {"retry-after": "1"})] * 50
    assert len(origin.requests) <= 2  # who came after the first had begun share a second


def test_what_fetch_raises_reaches_its_readers_and_nothing_is_kept(make, client):
    def fetch(request):
        raise OSError("the origin is away")

    responses = make(fetch=fetch)
    for _ in range(2):
        with pytest.raises(OSError, match="the origin is away"):
            responses.get("/users", "acme")
    assert client.dbsize() == 0 and responses.stats.loads == 2


UNSHARED = {
    "cookie": {"Set-Cookie": "id=5"},
    "private": {"Cache-Control": "max-age=60, PRIVATE"},
    "fields": {"cache-control": 'private="x"'},
    "no-store": {"cache-control": "no-store"},
    "no-cache": {"cache-control": "no-cache"},
}


@pytest.mark.parametrize("headers", UNSHARED.values(), ids=UNSHARED)
def test_what_is_one_readers_alone_reaches_nobody_else(make, client, together, headers):
    numbers, turn, go_on = iter(range(100)), threading.Lock(), threading.Event()

    def distinct(told):
        def fetch(request):
            go_on.wait(60)
            with turn:
                return Response(body=str(next(numbers)), headers=told)

        responses = make(fetch=fetch)
        with open_when_all_have_missed(go_on, responses, 20):
            return len({one.body for one in together(20, responses.get, "/cart", "")})

    assert distinct(headers) == 20 and client.dbsize() == 0
    assert distinct({"cache-control": "public"}) == 1  # the control shares what may be shared


def test_a_response_that_depends_on_anything_is_not_kept(responses, origin, client):
    origin.answer = Response(headers={"Vary": "*"})
    responses.get("/users", "acme")
    assert client.dbsize() == 0


# ETag and 304


def test_who_has_it_already_gets_304_without_a_body(responses, origin):
    origin.answer = Response(body="text", headers={"Content-Type": "text/plain", "Date": "today"})
    tag = responses.get("/users", "acme").headers["etag"]
    for told in (tag, f"W/{tag}", f'"other", {tag}', f'"a,b",W/{tag}', "*"):
        found = responses.get("/users", "acme", if_none_match=told)
        assert found == Response(304, "", {"date": "today", "etag": tag})
    for told in (None, "", '"other"', tag[1:-1], tag[:-2] + '"', '"', "W/"):
        found = responses.get("/users", "acme", if_none_match=told)
        assert found.status == 200 and found.headers["content-type"] == "text/plain"
    assert len(origin.requests) == 1


def test_another_body_has_another_tag_and_the_origins_own_is_passed_on(responses, origin):
    tag = responses.get("/users", "acme").headers["etag"]
    origin.answer = Response(body="changed")
    responses.invalidate("/users", "acme")
    changed = responses.get("/users", "acme", if_none_match=tag)
    assert (changed.status, changed.body) == (200, "changed") and changed.headers["etag"] != tag
    origin.answer = Response(headers={"ETag": 'W/"5"'})
    found = responses.get("/new", "acme", if_none_match='"5"')
    assert (found.status, found.headers["etag"]) == (304, 'W/"5"')
    origin.answer = Response()
    assert "etag" not in responses.get("/users", "acme", method="head").headers  # of which body?


# Failures and bad input


def test_without_redis_a_response_comes_from_the_origin(make, origin):
    with cl.Server() as server:
        responses = make(server.url)
        first = responses.get("/users", "acme")
        server.kill()
        assert responses.get("/users", "acme") == first
        with pytest.raises(cl.InvalidationPending):
            responses.invalidate("/users", "acme")
    assert len(origin.requests) == 2


def test_a_reader_who_is_cancelled_takes_nothing_from_the_others(aclient, run_async):
    async def main():
        entered, go_on, asked = asyncio.Event(), asyncio.Event(), []

        async def fetch(request):
            asked.append(request)
            entered.set()
            await go_on.wait()
            return Response(body=request.path)

        responses = AsyncResponses(aclient, fetch)
        first = asyncio.create_task(responses.get("/users", "acme"))
        await entered.wait()
        others = [asyncio.create_task(responses.get("/users", "acme")) for _ in range(5)]
        while responses.stats.misses < 6:
            await aclient.ping()
        first.cancel()
        await asyncio.wait([first])
        go_on.set()
        return first.cancelled(), {one.body for one in await asyncio.gather(*others)}, len(asked)

    assert run_async(main()) == (True, {"/users"}, 1)


def test_a_fetch_may_ask_for_another_response(make):
    def fetch(request):
        if request.path == "/":
            return Response(body=responses.get("/part", request.tenant).body)
        return Response(body=f"part of {request.tenant}")

    responses = make(fetch=fetch)
    assert responses.get("/", "ada").body == "part of ada" == responses.get("/part", "ada").body


def test_another_version_reads_nothing_that_is_there(make, origin):
    for version in ("1", "2", "1"):
        make(version=version).get("/users", "acme")
    assert len(origin.requests) == 2


@pytest.mark.parametrize("body", ["0", "null", "lease:x", "ä\0\r\n", "\ud800", '{"a": NaN}'])
def test_a_body_comes_back_as_it_was(responses, origin, body):
    origin.answer = Response(body=body)
    assert [responses.get("/users", "acme").body for _ in range(2)] == [body, body]
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [None, "text", (200, "x"), Response(body=b"x"), Response(99), Response(headers={"a": 5})],
)
def test_what_is_no_response_is_refused_and_not_kept(make, client, answer):
    with pytest.raises((TypeError, ValueError), match="must be"):
        make(fetch=lambda request: answer).get("/users", "acme")
    assert client.dbsize() == 0


BAD = {
    "path": ({"path": "users"}, ValueError),
    "query": ({"path": "/users?page=2"}, ValueError),
    "no path": ({"path": None}, TypeError),
    "tenant": ({"tenant": None}, TypeError),
    "tenant number": ({"tenant": 5}, TypeError),
    "method": ({"method": "POST"}, ValueError),
    "text params": ({"params": "page=2"}, TypeError),
    "pairs": ({"params": ["ab"]}, TypeError),
    "true": ({"params": {"a": True}}, TypeError),
    "none": ({"params": {"a": None}}, TypeError),
    "float": ({"params": {"a": 1.0}}, TypeError),
    "surrogate": ({"params": {"a": "\ud800"}}, ValueError),
    "name": ({"params": {5: "a"}}, TypeError),
    "headers": ({"headers": ["a"]}, TypeError),
    "header": ({"headers": {"a": b"x"}}, TypeError),
    "twice": ({"headers": {"a": "x", "A": "y"}}, ValueError),
    "tag": ({"if_none_match": 5}, TypeError),
}


@pytest.mark.parametrize(("words", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_asked(responses, origin, client, words, error):
    with pytest.raises(error):
        responses.get(**{"path": "/users", "tenant": "acme"} | words)
    assert origin.requests == [] and client.dbsize() == 0


def test_a_bad_setting_is_refused(make, client, aclient, origin):
    for options in ({"ttl": 0}, {"vary": "accept"}, {"version": 1}, {"max_loads": 0}):
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            make(**options)
    with pytest.raises(TypeError, match="fetch must be a function"):
        make(fetch=None)

    async def fetch(request):
        return Response()

    with pytest.raises(TypeError, match="fetch must be a plain function"):
        make(fetch=fetch)
    for make_wrong in (
        lambda: AsyncResponses(client, fetch),
        lambda: Responses(aclient, origin.fetch),
    ):
        with pytest.raises(TypeError, match="connect"):
            make_wrong()


def test_the_repr_of_a_request_shows_no_header():
    assert "secret" not in repr(Request("GET", "/", (), "", (("authorization", "secret"),)))
