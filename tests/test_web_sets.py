"""The demo on a cluster and behind Sentinels: its URL is all that changes, and counts stay true."""

import contextlib
import itertools

import pytest
import redis
from conftest import PATIENT
from test_web import LAMP, Browser, cost

import cachelab as cl
from cachelab.apps.web import costs, serving
from cachelab.apps.web.settings import Settings

pytestmark = pytest.mark.further
PAGES = ["/", LAMP, "/feed", "/cart", "/trending", "/people/ada", "/product/slate-vase"]


@pytest.fixture
def demo(tmp_path):
    """A function that serves the demo on a practice set, and yields a browser of ada's."""

    @contextlib.contextmanager
    def demo(servers):
        with cl.UserDatabase(f"sqlite:///{tmp_path}/demo.db", latency=0) as database:
            told = Settings(servers.url, database.url, latency=0, ttl=600, timeout=PATIENT)
            with serving.serving(told) as url, contextlib.closing(Browser(url, "ada")) as browser:
                yield browser

    return demo


def told_and_sent(browser: Browser, primaries: list[redis.Redis]) -> list[tuple[float, int]]:
    """Return how many commands each page tells, and how many its primaries got for it."""
    with contextlib.ExitStack() as stack:
        monitors = [stack.enter_context(one.monitor()) for one in primaries]

        def sent() -> int:
            for primary in primaries:
                primary.echo("over")
            told = [
                itertools.takewhile(lambda one: "over" not in one["command"], one.listen())
                for one in monitors
            ]
            seen = [one for one in itertools.chain(*told) if one["client_type"] != "lua"]
            return sum("demo:" in one["command"] for one in seen)

        return [(cost(browser.get(page))["commands"], sent()) for page in PAGES]


def does_all(browser: Browser) -> None:
    """Browse, buy, write and let visitors in; each page comes."""
    assert {browser.get(page).status_code for page in PAGES} == {200}
    assert browser.buy("oak-tray", 2).status_code == 303 and browser.cart == {"oak-tray": 2}
    assert browser.send_form("/feed", text="Of three parts.").status_code == 303
    assert "Of three parts." in browser.get("/people/ada").text
    assert browser.switch("redis", "off").status_code == 403  # it was not started by the demo


def primaries(servers, count: int) -> list[redis.Redis]:
    urls = [node.url.replace("-cluster", "") for node in servers.nodes[:count]]
    return [redis.Redis.from_url(url, decode_responses=True) for url in urls]


def test_on_a_cluster_pages_tell_the_commands_of_all_nodes(demo, monkeypatch):
    with cl.Cluster() as cluster:
        with demo(cluster) as browser:
            does_all(browser)
            counts = told_and_sent(browser, primaries(cluster, 3))
            assert all(told == sent > 0 for told, sent in counts)
        monkeypatch.setattr(costs, "AsyncCluster", type(None))  # the control: its client's alone
        with demo(cluster) as browser:
            told_and_sent(browser, primaries(cluster, 3))
            naive = told_and_sent(browser, primaries(cluster, 3))
            assert sum(told < sent for told, sent in naive) >= 4


def test_behind_sentinels_pages_tell_the_commands_of_the_primary(demo):
    with cl.Sentinel() as sentinel, demo(sentinel) as browser:
        does_all(browser)
        counts = told_and_sent(browser, primaries(sentinel, 1))
        assert all(told == sent > 0 for told, sent in counts)
