"""The demo, asked by real sockets: what a page tells of its cost, whose it is, what it refuses."""

import asyncio
import contextlib
import http.client
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import replace

import httpx2
import pandas as pd
import pytest
from conftest import PATIENT, at_best
from starlette.routing import Mount

import cachelab as cl
from cachelab.apps.web import serving
from cachelab.apps.web.application import make_application
from cachelab.apps.web.board import EVERY, merged
from cachelab.apps.web.origin import opened, tables
from cachelab.apps.web.pages import MOST_LETTERS
from cachelab.apps.web.settings import Settings
from cachelab.apps.web.shop import LOGINS, WRITES, Shop
from cachelab.cli.commands import main
from cachelab.lab import pages

HIDDEN = re.compile(r'type="hidden" name="(token|request)" value="(\w+)"')
POSTGRES = os.environ.get("CACHELAB_TEST_POSTGRES", "")
LAMP = "/product/oak-desk-lamp"
SLOW = 0.4  # seconds


class Browser(httpx2.Client):
    """A browser: it keeps cookies, and sends with a form what its page gave to go with it."""

    def __init__(self, url: str, name: str | None = None):
        super().__init__(base_url=url, timeout=60, verify=False)
        if name:
            assert self.send_form("/login", name=name, next="/").status_code == 303

    def hidden(self, page: str) -> dict[str, str]:
        return dict(HIDDEN.findall(self.get(page).text))

    def send_form(self, page: str, path: str | None = None, **fields: str) -> httpx2.Response:
        return self.post(path or page, data=self.hidden(page) | fields)

    def buy(self, id: str, quantity: int = 1) -> httpx2.Response:
        fields = {"item": id, "quantity": str(quantity), "change": "add"}
        return self.send_form(f"/product/{id}", "/cart", **fields)

    def switch(self, name: str, to: str) -> httpx2.Response:
        return self.send_form("/bench", switch=name, to=to)

    @property
    def cart(self) -> dict[str, int]:
        lines = re.findall(r'id="q-([\w-]+)".*value="(\d+)"', self.get("/cart").text)
        return {id: int(number) for id, number in lines}


def cost(response: httpx2.Response) -> dict[str, float]:
    """Return what a response says that it cost."""
    told = response.headers["server-timing"]
    ms = dict(re.findall(r"(\w+);dur=([\d.]+)", told))
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (commands|round trips|loads)", told)}
    return counts | {name: float(number) for name, number in ms.items()}


@pytest.fixture(scope="module")
def settings(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.db"
    with cl.UserDatabase(f"sqlite:///{path}", latency=0) as database:
        patient = {"ttl": 600, "timeout": PATIENT}
        yield Settings(server.url, database.url, "http://127.0.0.1", True, 0.0, SLOW, **patient)


@pytest.fixture(scope="module")
def url(settings, server):
    with pytest.MonkeyPatch.context() as patch, serving.serving(settings, server) as url:
        patch.setattr("cachelab.cache.gate.BUDGET", 2 * PATIENT)  # a machine may stand still
        yield url


@pytest.fixture(autouse=True)
def nobody_was_here(client):
    """Each test begins with an empty Redis."""


@pytest.fixture
def browse(url):
    """A function that opens a browser, of somebody who has logged in or of a guest."""
    opened = []

    def browse(name: str | None = None) -> Browser:
        opened.append(Browser(url, name))
        return opened[-1]

    yield browse
    for browser in opened:
        browser.close()


# What a page tells


def test_a_page_tells_a_miss_then_a_hit_with_its_commands_and_loads(browse):
    browser = browse()
    cold, warm = browser.get(LAMP), browser.get(LAMP)
    assert (cold.headers["x-cache"], warm.headers["x-cache"]) == ("miss", "hit")
    assert (cost(cold)["loads"], cost(warm)["loads"]) == (1, 0)
    assert cost(cold)["commands"] > cost(warm)["commands"] == 2  # the product, and its trend
    assert '<strong class="outcome hit">hit</strong>' in warm.text
    assert re.search(r"<b>2</b> commands in <b>2</b> trips", warm.text)
    ms = float(re.search(r"<b>([\d.]+)</b> ms", warm.text)[1])
    assert 0 < ms <= cost(warm)["total"] + 0.1


def test_the_commands_that_a_page_tells_are_those_that_redis_got(browse, client):
    browser = browse("ada")
    with client.monitor() as monitor:
        told = cost(browser.get("/feed"))
        client.set("over", "1")
        seen = list(itertools.takewhile(lambda one: "over" not in one["command"], monitor.listen()))
    sent = [one for one in seen if one["client_type"] != "lua" and "demo:" in one["command"]]
    assert told["commands"] == len(sent) > told["round trips"] > 1


def test_who_waits_for_another_readers_load_has_missed_and_loads_nothing(browse, settings):
    browser = browse()
    browser.switch("slow", "on")

    async def crowd() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(
            base_url=str(browser.base_url), verify=False, timeout=60
        ) as client:
            return await asyncio.gather(*(client.get(LAMP) for _ in range(5)))

    try:
        seen = asyncio.run(crowd())
    finally:
        browser.switch("slow", "off")
    assert sum(cost(one)["loads"] for one in seen) == 1
    assert {one.headers["x-cache"] for one in seen} == {"miss"}


def test_a_form_tells_on_the_next_page_what_it_cost(browse):
    browser = browse("ada")
    sent = browser.buy("oak-tray")
    assert sent.status_code == 303 and cost(sent)["commands"] > 0
    assert f"<b>{cost(sent)['commands']:.0f}</b> commands" in browser.get("/cart").text
    assert "The step before" not in browser.get("/cart").text


def test_cold_and_warm_pages_are_data():
    told = pages.measure(rounds=1, latency=0.005).set_index(["page", "state"])
    loads = told.loads.unstack()
    assert set(loads.index) == set(pages.PAGES)
    assert (loads["warm"] == 0).all()
    assert (loads["cold"] > 0).all() and (loads["no cache"] > 0).all()


def test_percentiles_of_a_crowd_are_data_and_who_misses_waits_for_the_database(url, browse):
    browser, places = browse(), asyncio.Semaphore(20)
    browser.switch("slow", "on")

    async def crowd() -> pd.DataFrame:
        async with httpx2.AsyncClient(base_url=url, timeout=120, verify=False) as client:

            async def read(number: int) -> dict[str, object]:
                async with places:
                    page = await client.get(f"/product/oak-{('tray', 'vase')[number % 2]}")
                return {"status": page.status_code, "state": page.headers["x-cache"], **cost(page)}

            return pd.DataFrame(await asyncio.gather(*map(read, range(200))))

    try:
        seen = asyncio.run(crowd())
    finally:
        browser.switch("slow", "off")
    percentiles = seen.groupby("state").total.quantile([0.5, 0.95, 0.99]).unstack()
    assert set(seen.status) == {200} and set(percentiles.index) == {"hit", "miss"}
    assert seen.loads.sum() == 2 and (seen.database[seen.state == "hit"] == 0).all()
    assert percentiles.loc["miss", 0.99] >= 1000 * SLOW * 0.99


# Whose it is


def test_a_log_in_changes_the_id_and_what_a_guest_chose_comes_along(browse):
    browser = browse()
    browser.buy("oak-tray", 2)
    guest = browser.cookies["session"]
    browser.send_form("/login", name="ada", next="/")
    assert browser.cookies["session"] != guest and browser.cart == {"oak-tray": 2}
    planted = browse()
    planted.cookies.set("session", guest)
    assert planted.cart == {}


def test_a_log_out_ends_the_session_whoever_kept_its_id(browse):
    browser, thief = browse("ada"), browse()
    thief.cookies.set("session", browser.cookies["session"])
    assert "/people/ada" in thief.get("/feed").text
    browser.send_form("/login", "/logout", where="here")
    assert thief.get("/feed").status_code == browser.get("/feed").status_code == 303


def test_a_log_out_everywhere_ends_the_others_too(browse):
    laptop, phone = browse("ada"), browse("ada")
    laptop.send_form("/login", "/logout", where="everywhere")
    assert phone.get("/feed").headers["location"] == "/login?next=/feed"


def test_the_cookie_is_for_no_script_and_no_other_site(browse):
    told = browse().get("/").headers["set-cookie"]
    assert "HttpOnly" in told and "SameSite=lax" in told and "Path=/" in told


def test_over_tls_the_cookie_is_secure_and_of_this_host_alone(settings, url):
    made = make_application(
        Settings(settings.redis_url, settings.database_url, "https://a.example")
    )

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(made)
        async with httpx2.AsyncClient(transport=transport, base_url="https://a.example") as client:
            response = await client.get("/people/nobody")
            assert response.status_code == 404
            response = await client.get("/")
        await made.state.shop.close()
        return response

    told = asyncio.run(ask()).headers["set-cookie"]
    assert told.startswith("__Host-session=guest.") and "Secure" in told and "Domain" not in told


def test_two_demos_on_one_machine_do_not_log_each_other_out(settings):
    urls = ("http://127.0.0.1", "http://127.0.0.1:8868", "http://[::1]:8869")
    names = [replace(settings, url=url).cookie for url in urls]
    assert names == ["session", "session-8868", "session-8869"]


@pytest.mark.parametrize(
    ("page", "to", "fields"),
    [
        (LAMP, "/cart", {"item": "oak-tray", "quantity": "1", "change": "add"}),
        ("/feed", "/feed", {"text": "hello"}),
        ("/login", "/login", {"name": "alan", "next": "/"}),
        ("/login", "/logout", {"where": "everywhere"}),
        ("/bench", "/bench", {"switch": "cache", "to": "on"}),
    ],
)
def test_a_form_of_another_site_is_refused_and_ours_is_not(browse, page, to, fields):
    browser, other = browse("ada"), browse("alan")
    own, foreign = browser.hidden(page), other.hidden(page)
    own |= {"request": "0" * 32}
    posts = browser.get("/people/ada").text.count("hello")
    for token in ("", "x", "é", foreign["token"], None):
        sent = own | fields | {"token": token}
        answer = browser.post(to, data={key: one for key, one in sent.items() if one is not None})
        assert answer.status_code == 403 and "does not come from a page" in answer.text
    assert browser.cart == {} and browser.get("/people/ada").text.count("hello") == posts
    assert browser.post(to, data=own | fields).status_code == 303  # the control


def test_two_users_never_see_each_other_in_500_requests_at_once(url, browse):
    alike = {name: browse(name) for name in ("ada", "grace")}
    goods = {"ada": "oak-tray", "grace": "slate-vase"}
    for name, browser in alike.items():
        browser.buy(goods[name], 7)

    async def seen(transport=None) -> list[tuple[str, str]]:
        places = asyncio.Semaphore(40)
        async with httpx2.AsyncClient(base_url=url, timeout=120, transport=transport) as client:

            async def ask(name: str, path: str) -> tuple[str, str]:
                cookie = {"cookie": f"session={alike[name].cookies['session']}"}
                async with places:
                    response = await client.get(path, headers=cookie)
                assert response.status_code == 200 and "set-cookie" not in response.headers
                return name, response.text

            both = [(name, path) for path in ("/cart", "/feed", "/login") for name in alike]
            return await asyncio.gather(*(ask(*both[n % 6]) for n in range(500)))

    def mixed_up(answers: list[tuple[str, str]]) -> int:
        other = {"ada": "grace", "grace": "ada"}
        return sum(
            f'<a href="/login"{here}>{other[name]}</a>' in text or goods[other[name]] in text
            for name, text in answers
            for here in ("", ' aria-current="page"')
        )

    answers = asyncio.run(seen())
    assert len(answers) == 500 and mixed_up(answers) == 0
    assert sum(goods[name] in text for name, text in answers) >= 160  # they saw their own
    assert mixed_up(asyncio.run(seen(KeptByPath()))) > 50  # the control


class KeptByPath(httpx2.AsyncHTTPTransport):
    """A cache of responses as it is often built: by path, for everybody."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    async def handle_async_request(self, request):
        if request.url.path not in self.kept:
            response = await super().handle_async_request(request)
            self.kept[request.url.path] = (response.status_code, await response.aread())
        status, body = self.kept[request.url.path]
        return httpx2.Response(status, content=body, headers={"content-type": "text/html"})


def test_a_page_holds_no_secret(browse, settings, server):
    browser = browse("ada")
    password = server.url.split("@")[0].rpartition(":")[2]
    for path in ("/", LAMP, "/cart", "/feed", "/login", "/bench", "/bench/seconds", "/nothing"):
        response = browser.get(path)
        assert password not in response.text and settings.database_url not in response.text
        assert browser.cookies["session"] not in response.text
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'self'" in response.headers["content-security-policy"]
    assert password not in repr(settings)


# What is done once, or not at all


def test_a_hundred_and_sixty_additions_at_once_lose_none_and_raise_no_error(url, browse):
    browsers = [browse(f"visitor-{number}") for number in range(1, 9)]
    hidden = [browser.hidden(LAMP) for browser in browsers]
    ms, statuses = [], Counter()

    async def crowd() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=120, verify=False) as client:

            async def add(number: int) -> None:
                who = number % len(browsers)
                form = {"item": "oak-tray", "quantity": "1", "change": "add"}
                form |= hidden[who] | {"request": f"{number:032x}"}
                cookie = {"cookie": f"session={browsers[who].cookies['session']}"}
                response = await client.post("/cart", data=form, headers=cookie)
                statuses[response.status_code] += 1
                ms.append(cost(response)["total"])

            await asyncio.gather(*(add(number) for number in range(160)))

    asyncio.run(crowd())
    assert statuses == {303: 160} and len(ms) == 160
    assert [browser.cart for browser in browsers] == [{"oak-tray": 20}] * 8


def test_a_form_that_is_sent_twice_adds_once_and_another_adds_more(browse):
    browser = browse("ada")
    form = browser.hidden(LAMP) | {"item": "oak-tray", "quantity": "3", "change": "add"}
    assert [browser.post("/cart", data=form).status_code for _ in range(2)] == [303, 303]
    assert browser.cart == {"oak-tray": 3}
    browser.buy("oak-tray")
    assert browser.cart == {"oak-tray": 4}
    browser.send_form("/cart", item="oak-tray", quantity="0", change="put")
    assert browser.cart == {}


def test_the_sixth_post_within_ten_seconds_meets_the_limit(browse):
    browser = browse("ada")
    answers = [browser.send_form("/feed", text=f"Number {n}.") for n in range(WRITES + 1)]
    assert [one.status_code for one in answers] == [303] * WRITES + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].headers["ratelimit-remaining"] == "0"
    wall = browser.get("/people/ada").text
    assert "Number 4." in wall and "Number 5." not in wall
    assert browse("alan").send_form("/feed", text="Mine.").status_code == 303  # another's limit


def test_log_ins_of_a_name_are_limited_and_those_of_another_are_not(browse):
    browser = browse()
    names = ["nobody"] * LOGINS + ["nobody", "ada"]
    answers = [browser.send_form("/login", name=name, next="/").status_code for name in names]
    assert answers == [400] * LOGINS + [429, 303]


def test_a_post_reaches_those_who_follow_and_is_shown_as_text(browse):
    author, reader, stranger = browse("ada"), browse("grace"), browse("alan")
    for browser in (reader, stranger):
        browser.get("/feed")
    author.send_form("/feed", text="<script>alert(1)</script> & 'tea'\r\n")
    followers = [b for b in (reader, stranger) if "alert(1)" in b.get("/feed").text]
    wall = author.get("/people/ada").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;tea&#39;" in wall
    assert "<script>" not in wall and followers == [reader]


def test_older_posts_come_page_by_page_with_the_cache_and_without(browse):
    browser = browse("ada")

    def walk() -> list[str]:
        found, path = [], "/feed"
        while path:
            text = browser.get(path).text
            found += re.findall(r"<li><p>(.+?)</p>", text)
            older = re.search(r'<a href="(/feed\?after=[^"]+)" rel="next"', text)
            path = older and older[1]
        return found

    cached = walk()
    browser.switch("cache", "off")
    try:
        plain = walk()
    finally:
        browser.switch("cache", "on")
    assert len(cached) >= 24 and cached == plain


# What is refused

FORM = {"content-type": "application/x-www-form-urlencoded"}
BAD_PAGES = [
    "/?page=0", "/?page=5", "/?page=-1", "/?page=1e3", "/?page=%00", "/?page=" + "9" * 5000,
    "/product/nothing", "/product/" + "a" * 5000, "/product/%00", "/product/%ff", "/product/..%2f",
    "/product/<script>", "/people/nobody", "/people/%00", "/people/" + "é" * 500,
    "/feed?after=x", "/feed?after=%00", "/feed?after=9999999999999999999:1",
    "/people/ada?after=" + "1" * 5000, "/people/ada?after=0000000000000001%00",
    "/nothing", "/static/../settings.py", "/static/%2e%2e/settings.py", "/static/", "/cart/x",
    "/bench/seconds/x", "/health/x", "/trending/x", "/login/x",
]  # fmt: skip
BAD_FORMS = {
    "/cart": [
        {"quantity": "-1"}, {"quantity": "0"}, {"quantity": "1.5"}, {"quantity": "1e9"},
        {"quantity": "9" * 400}, {"quantity": ""}, {"quantity": "١"}, {"quantity": "100"},
        {"item": "nothing"}, {"item": ""}, {"item": "x" * 5000}, {"item": "oak-tray\0"},
        {"change": "steal"}, {"request": "x"}, {"request": ""}, {"request": "0" * 33},
        {"change": "put", "quantity": "-1"}, {"change": "put", "item": "nothing"},
    ],
    "/feed": [
        {"text": ""}, {"text": " \n "}, {"text": "x" * (MOST_LETTERS + 1)}, {"text": "\0"},
        {"request": "x"}, {"request": ""},
    ],
    "/login": [{"name": ""}, {"name": "nobody"}, {"name": "ada\0"}, {"name": "x" * 5000}],
    "/logout": [{"where": ""}, {"where": "there"}],
    "/bench": [
        {"switch": "light"}, {"to": "sideways"}, {"switch": "", "to": ""}, {"switch": "cache\0"},
    ],
}  # fmt: skip
GOOD_FORMS = {
    "/cart": {"item": "oak-tray", "quantity": "1", "change": "add", "request": "0" * 32},
    "/feed": {"text": "Tea.", "request": "0" * 32},
    "/login": {"name": "ada", "next": "/"},
    "/logout": {"where": "here"},
    "/bench": {"switch": "cache", "to": "on"},
}


def refused(response: httpx2.Response) -> None:
    """Say that a response refuses in words, and is no fault."""
    assert 400 <= response.status_code < 500, (response.status_code, str(response.url)[:80])
    assert "Traceback" not in response.text
    assert re.search(r'role="alert">[A-Z].+\.</p>', response.text)


def test_bad_pages_are_refused_in_words(browse):
    browser = browse("ada")
    for path in BAD_PAGES:
        refused(browser.get(path))
    assert ">ada</a>" in browser.get("/product/nothing").text  # who is refused is known still
    for path in ("/", LAMP, "/people/ada", "/trending", "/feed", "/health", "/static/demo.css"):
        assert browser.get(path).status_code == 200


@pytest.mark.parametrize("path", BAD_FORMS)
def test_bad_fields_are_refused_in_words(browse, path):
    browser = browse("ada")
    token = {"token": browser.hidden("/bench")["token"]}
    good = GOOD_FORMS[path] | token
    for bad in BAD_FORMS[path]:
        refused(browser.post(path, data=good | bad))
    assert browser.post(path, data=good).status_code == 303  # the control


@pytest.mark.parametrize("path", BAD_FORMS)
def test_what_is_no_form_is_refused_in_words(browse, path):
    browser = browse("ada")
    token = browser.hidden("/bench")["token"]
    for body, kind, status in [
        (b'{"token": "x"}', "application/json", 415),
        (b"--x--", "multipart/form-data; boundary=x", 415),
        (b"", "", 415),
        (b"a" * 20_000, FORM["content-type"], 413),
        (b"&".join(b"a%d=1" % n for n in range(100)), FORM["content-type"], 400),
        (b"%ff=%fe", FORM["content-type"], 400),
        (b"\xff\xfe", FORM["content-type"], 400),
        (b"novalue", FORM["content-type"], 400),
        (f"token={token}&token={token}".encode(), FORM["content-type"], 400),
        (f"token={token}&text=%00".encode(), FORM["content-type"], 400),
    ]:
        response = browser.post(path, content=body, headers={"content-type": kind})
        refused(response)
        assert response.status_code == status


def test_what_nobody_would_send_is_no_fault_either(browse):
    browser, chance = browse("ada"), random.Random(13)
    token = browser.hidden("/bench")["token"]
    letters = "/%00ff..;é\\\"'<>&=?#{}[]~\U0001f600\t\n aZ09-"
    for _ in range(150):
        text = "".join(chance.choices(letters, k=chance.randint(1, 60)))
        place = chance.choice(["/", "/product/", "/people/", "/feed?after=", "/login?next="])
        path = chance.choice(sorted(BAD_FORMS))
        field = chance.choice(sorted(GOOD_FORMS[path]))
        kept = chance.choice(["", "/%?&="])
        sent = [
            browser.get(place + urllib.parse.quote(text, safe=kept)),
            browser.post(path, content=text.encode(), headers=FORM),
            browser.post("/cart", data=GOOD_FORMS["/cart"] | {"token": token, "item": text}),
            browser.post("/bench", data={"token": token, field: text}),
        ]
        assert max(one.status_code for one in sent) < 500, (place, path, text)


def test_the_bad_input_is_tried_on_every_route(settings):
    routes = make_application(settings).routes
    forms = {one.path for one in routes if not isinstance(one, Mount) and "POST" in one.methods}
    assert forms == set(BAD_FORMS) == set(GOOD_FORMS)
    read = {one.path.split("{")[0].rstrip("/") or "/" for one in routes}
    assert all(any(bad.startswith(path) for bad in BAD_PAGES) for path in read - {"/logout"})


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
def test_another_method_is_refused_in_words(browse, method):
    response = browse().request(method, LAMP, headers=FORM)
    refused(response)
    assert response.status_code == 405 and "GET" in response.headers["allow"]


@pytest.mark.parametrize(
    "elsewhere",
    ["https://e.example/", "//e.example", "/\\e.example", "\\\\e.example", "javascript:alert(1)",
     "/\te.example", "///e.example", "http:e.example", "/feed\r\nSet-Cookie: a=b", "[", ""],
)  # fmt: skip
def test_a_log_in_leads_nowhere_else(browse, elsewhere):
    browser = browse()
    asked = browser.get("/login", params={"next": elsewhere}).text
    assert 'name="next" value="/"' in asked
    sent = browser.post(
        "/login", data=browser.hidden("/login") | {"name": "ada", "next": elsewhere}
    )
    assert sent.headers["location"] == "/"
    again = browser.send_form("/login", name="ada", next="/people/ada?after=1")
    assert again.headers["location"] == "/people/ada?after=1"  # the control


@pytest.mark.parametrize("cookie", ["", "x", "guest.x", "'; DROP", "é" * 50, "a" * 3000])
def test_a_cookie_that_means_nothing_is_a_guests(url, cookie):
    headers = {"cookie": f"session={cookie}".encode()}
    response = httpx2.get(f"{url}/cart", headers=headers)
    assert response.status_code == 200 and "session=guest." in response.headers["set-cookie"]


def test_a_name_that_is_not_ours_is_refused(browse):
    assert browse().get("/", headers={"host": "e.example"}).status_code == 400


def test_what_a_cookie_says_of_the_form_before_is_no_html(browse):
    browser = browse()
    browser.cookies.set("before", "<b>-1-2-3")
    assert "<b>-1" not in browser.get("/").text and "The step before" not in browser.get("/").text
    browser.cookies.set("before", "1-2-3-4.5")
    assert "The step before" in browser.get("/").text  # the control


# The switches


def test_without_the_cache_each_page_asks_the_database(browse):
    browser = browse("ada")
    for path in ("/", LAMP, "/feed"):
        browser.get(path)
    browser.switch("cache", "off")
    try:
        seen = [browser.get(path) for path in ("/", LAMP, "/feed", "/people/ada")]
    finally:
        browser.switch("cache", "on")
    assert {one.headers["x-cache"] for one in seen} == {"off"}
    assert all(cost(one)["loads"] >= 1 for one in seen)
    assert browser.get(LAMP).headers["x-cache"] == "hit"


def test_a_slow_database_is_slow_and_a_hit_does_not_ask_it(browse):
    browser = browse()
    browser.get(LAMP)
    browser.switch("slow", "on")
    try:
        hit, miss = browser.get(LAMP), browser.get("/product/oak-tray")
    finally:
        browser.switch("slow", "off")
    assert cost(hit)["database"] == 0 and cost(miss)["database"] >= 1000 * SLOW


def test_killed_redis_leaves_what_the_database_knows_and_comes_back(browse):
    browser = browse("ada")
    browser.buy("oak-tray")
    browser.switch("redis", "off")
    try:
        assert "It does not answer." in browser.get("/bench").text
        for path in ("/", LAMP, "/people/ada"):
            shown = browser.get(path)
            assert shown.status_code == 200 and "comes from the database" in shown.text
        for path in ("/cart", "/feed", "/trending"):
            away = browser.get(path)
            assert away.status_code == 503 and "it alone knows who you are" in away.text
        assert browser.buy("oak-tray").status_code == 503
        assert browser.send_form("/login", name="ada", next="/").status_code == 503
        stranger = browse()
        assert stranger.get("/").status_code == 200
    finally:
        again = browser.switch("redis", "on")
    assert again.status_code == 303 and "It answers." in browser.get("/bench").text
    assert browser.get("/feed").status_code == 303  # the session is gone with the server
    browser.send_form("/login", name="ada", next="/")
    assert browser.get("/feed").status_code == 200


@pytest.mark.parametrize("order", ["CONFIG SET maxmemory 1", "ACL SETUSER default -eval -getex"])
def test_a_redis_that_refuses_is_no_fault_and_leaves_what_the_database_knows(
    settings, order, caplog
):
    with cl.Server(save="", appendonly=False) as server:
        told = replace(settings, redis_url=server.url)
        with serving.serving(told) as url, contextlib.closing(Browser(url, "ada")) as browser:
            token = browser.hidden(LAMP) | {"text": "Tea."}
            cl.connect(server.url).execute_command(*order.split())
            read = [browser.get(path) for path in ("/", LAMP, "/people/ada", "/bench")]
            assert {one.status_code for one in read} == {200}
            away = [browser.get("/trending"), browser.post("/feed", data=token)]
            assert {one.status_code for one in away} == {503}
            assert "Redis refuses: " in away[0].text and "Redis refuses what " in caplog.text


def test_a_form_that_breaks_off_is_no_fault(settings, caplog):
    made = make_application(replace(settings, prefix="broken-off:"))
    came = [{"type": "http.request", "body": b"token=", "more_body": True}]
    sent = []

    async def receive() -> dict:
        return came.pop() if came else {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", FORM["content-type"].encode())]
    scope = {"type": "http", "method": "POST", "path": "/cart", "headers": headers}
    asyncio.run(made(scope | {"query_string": b"", "server": ("localhost", 80)}, receive, send))
    assert sent[0]["status"] == 400 and caplog.text == ""


def test_a_server_that_died_by_itself_is_started_again_and_one_that_lives_is_not(settings):
    with cl.Server(save="", appendonly=False) as server:
        told = replace(settings, redis_url=server.url)
        with serving.serving(told, server) as url, contextlib.closing(Browser(url)) as browser:
            server.kill()
            browser.switch("redis", "on")
            assert "It answers." in browser.get("/bench").text
            before = server.pid
            browser.switch("redis", "on")
            time.sleep(2 * EVERY)
            assert server.pid == before


def test_a_server_that_the_demo_did_not_start_is_left_alone(settings, server):
    other = Settings(settings.redis_url, settings.database_url, prefix="other:")
    with serving.serving(other) as url, Browser(url) as browser:
        page = browser.get("/bench").text
        assert re.search(r'value="off"[^>]* disabled>Kill it', page)
        answer = browser.switch("redis", "off")
        assert answer.status_code == 403 and "was not started by the demo" in answer.text
        assert cl.connect(server.url).ping()


def test_twenty_visitors_come_are_counted_and_go(browse):
    browser, began = browse(), int(time.time()) + 1  # what was asked before is over by then
    browser.switch("visitors", "on")

    def counted() -> list[dict]:
        return [row for row in browser.get("/bench/seconds").json() if row["at"] >= began]

    try:
        end = time.monotonic() + 60
        while sum(row["requests"] for row in counted()) < 40:
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        rows = counted()
        browser.switch("visitors", "off")
    assert sum(row["errors"] for row in rows) == 0 < sum(row["loads"] for row in rows)
    assert all(0 < row["p50"] <= row["p95"] for row in rows if row["requests"])


def test_a_minute_of_several_workers_is_one():
    second = {"at": 99, "requests": 2, "hits": 1, "loads": 1, "errors": 0, "ms": [1.0, 9.0]}
    rows = merged([[second], [second | {"ms": [2.0, 3.0]}, second | {"at": 5}]], now=100)
    assert len(rows) == 60 and rows[-1]["requests"] == 4 and rows[-1]["loads"] == 2
    assert (rows[-1]["p50"], rows[-1]["p95"]) == (3.0, 9.0) and rows[0]["p50"] is None


def fill_up(server):
    cl.connect(server.url).config_set("maxmemory", 1)


def make_room(server):
    cl.connect(server.url).config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("fail", "mend"), [(cl.Server.freeze, cl.Server.thaw), (fill_up, make_room)]
)
def test_a_post_whose_redis_fails_after_the_commit_reaches_the_timelines_later(
    settings, fail, mend
):
    with cl.Server(save="", appendonly=False) as server:
        shop = Shop(Settings(server.url, settings.database_url))
        write = shop.origin.write

        async def write_then_freeze(author: str, text: str, request: str) -> int:
            rank = await write(author, text, request)
            fail(server)
            return rank

        async def told() -> bool:
            await shop.feed("grace", None)  # a timeline that is cached
            shop.origin.write = write_then_freeze
            await shop.write("ada", "Late.", "1")
            mend(server)
            await asyncio.wait_for(asyncio.gather(*shop._resends), 60)
            posts, _ = await shop.feed("grace", None)
            await shop.close()
            return posts[0]["text"] == "Late."

        assert asyncio.run(told())


@pytest.mark.further
@pytest.mark.skipif(not POSTGRES, reason="CACHELAB_TEST_POSTGRES names no PostgreSQL to test on")
def test_all_of_it_runs_on_postgresql(server):
    with cl.UserDatabase(POSTGRES, latency=0) as database:
        try:
            with serving.serving(Settings(server.url, database.url), server) as url:
                with contextlib.closing(Browser(url, "ada")) as browser:
                    assert browser.send_form("/feed", text="On PostgreSQL.").status_code == 303
                    assert "On PostgreSQL." in browser.get("/people/ada").text
                    assert browser.buy("oak-tray").status_code == 303 and browser.cart
                    browser.switch("cache", "off")
                    assert browser.get("/feed").headers["x-cache"] == "off"
        finally:
            engine = opened(database.url)
            tables().drop_all(engine)
            engine.dispose()


def test_a_fault_of_ours_is_told_without_its_cause_and_logged(settings, caplog):
    made = make_application(replace(settings, prefix="faulty:"))

    async def broken(number: int) -> list:
        raise RuntimeError("sesame")

    async def ask() -> httpx2.Response:
        made.state.shop.shelf = broken
        transport = httpx2.ASGITransport(made)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response = await client.get("/")
        await made.state.shop.close()
        return response

    told = asyncio.run(ask())
    assert told.status_code == 500 and "A fault of ours" in told.text
    assert "sesame" not in told.text and "sesame" in caplog.text
    assert "default-src 'self'" in told.headers["content-security-policy"]


def test_a_post_that_is_sent_twice_is_written_once_and_another_too(browse):
    browser = browse("alan")
    form = browser.hidden("/feed") | {"text": "Clicked twice."}
    assert [browser.post("/feed", data=form).status_code for _ in range(2)] == [303, 303]
    assert browser.get("/people/alan").text.count("Clicked twice.") == 1
    browser.send_form("/feed", text="Clicked twice.")
    assert browser.get("/people/alan").text.count("Clicked twice.") == 2


def test_a_database_that_fails_is_no_fault_of_the_page_and_logged_once(server, tmp_path, caplog):
    with cl.UserDatabase(f"sqlite:///{tmp_path}/demo.db", latency=0) as database:
        told = Settings(server.url, database.url, prefix="broken:", timeout=PATIENT)
        with serving.serving(told) as url, contextlib.closing(Browser(url)) as browser:
            assert browser.get("/").status_code == 200
            engine = opened(database.url)
            tables().drop_all(engine)
            engine.dispose()
            assert browser.get("/").headers["x-cache"] == "hit"
            away = browser.get(LAMP)
            assert away.status_code == 503 and "The database does not answer." in away.text
            end = time.monotonic() + 60
            while "cannot read its switches" not in caplog.text:
                assert time.monotonic() < end
                time.sleep(0.05)
            time.sleep(2.5 * EVERY)
    assert caplog.text.count("cannot read its switches") == 1


# The command

COMMAND = [sys.executable, "-m", "cachelab", "demo"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def env(tmp_path):
    others = ("REDIS_", "CACHELAB_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    return kept | {"TMPDIR": str(tmp_path)}


def test_two_workers_heed_a_switch_that_one_of_them_was_told(env, tmp_path):
    port = free_port()
    command = [*COMMAND, f"--port={port}", "--workers=2"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as demo:
        try:
            url = demo.stdout.readline().strip()
            assert url == f"http://127.0.0.1:{port}"
            with Browser(url) as browser:  # who connects waits until somebody serves
                browser.switch("cache", "off")
            off, end = 0, time.monotonic() + 60
            while off < 20:  # each over a connection of its own, which any worker may take
                with urllib.request.urlopen(f"{url}/", timeout=60) as response:
                    off = off + 1 if response.headers["x-cache"] == "off" else 0
                assert time.monotonic() < end
        finally:
            demo.send_signal(signal.SIGTERM)
        assert "The demo has ended." in demo.stdout.read()
    assert demo.returncode == 0 and list(tmp_path.glob("cachelab-*")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host=0.0.0.0"], "lets others than this machine in"),
        (["--host=0.0.0.0", "--url=http://example.org"], "must begin with https://"),
        (["--port=0"], "--port must be"),
        (["--workers=0"], "--workers must be"),
        (["--latency=-1"], "latency must be"),
        (["--url=https://example.org/path"], "url must be http://host:port"),
        (["--url=https://ada:sesame@example.org"], "not 'https://example.org'"),
        (["--url=https://*"], "url must be http://host:port"),
        (["--url=https://example.org/?a=b"], "url must be http://host:port"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(url, capsys, options, said):
    assert main(["demo", f"--port={free_port()}", *options]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and "sesame" not in told


def test_it_ends_in_order_however_often_it_is_told_to_and_whoever_has_sent_half_a_form(env):
    command = [*COMMAND, "--host=::1", f"--port={free_port()}"]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=env, text=True, **both) as demo:
        try:
            place = urllib.parse.urlsplit(demo.stdout.readline().strip())
            with socket.create_connection((place.hostname, place.port), timeout=60) as slow:
                slow.sendall(HALF)
                urllib.request.urlopen(f"http://{place.netloc}/health", timeout=60).close()
                demo.send_signal(signal.SIGINT)
                with pytest.raises(ConnectionError):
                    while True:  # until it is about to end
                        socket.create_connection((place.hostname, place.port), timeout=60).close()
                demo.send_signal(signal.SIGINT)
                said = demo.stdout.read()
                answer = slow.recv(100)
        finally:
            demo.kill()
    assert "The demo has ended." in said and "Traceback" not in said and demo.returncode == 0
    assert answer.startswith(b"HTTP/1.1 408")


HALF = (
    b"POST /cart HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n"
    b"content-type: application/x-www-form-urlencoded\r\n\r\ntoken="
)


def test_a_body_is_not_kept_back_until_its_headers_are_acknowledged(url, settings, monkeypatch):
    def is_prompt(url: str) -> bool:
        place = urllib.parse.urlsplit(url).netloc
        connection = http.client.HTTPConnection(place, timeout=60)
        began = time.monotonic()
        for _ in range(10):
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b"ok\n"
        connection.close()
        return time.monotonic() - began < 5 * 0.04

    assert at_best(lambda: is_prompt(url))
    monkeypatch.setattr(serving, "listening", lambda *place: socket.create_server(place))
    with serving.serving(replace(settings, prefix="naive:")) as naive:  # the control
        assert not at_best(lambda: is_prompt(naive))


def test_without_its_extra_the_command_tells_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["demo"]) == 2
    assert "run `pip install 'cachelab[web]'`" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(url, capsys):
    assert main(["demo", f"--port={url.rpartition(':')[2]}"]) == 2
    told = capsys.readouterr().err
    assert "in use" in told and told.count("\n") == 1
