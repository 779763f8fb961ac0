"""The rights of a user: all that a cache does, nothing that it does not."""

from contextlib import suppress

import pytest
import redis
from conftest import PATIENT

import cachelab as cl
from cachelab.lab import observe
from cachelab.lab.watch.rights import CACHE, cache_rules, watch_rules

ALWAYS = {"auth", "hello", "quit", "reset"}  # every user may


@pytest.fixture
def login(client, server):
    """A function that makes a user of rules and returns its URL."""

    def make(rules, name="shop") -> str:
        client.execute_command("ACL SETUSER", name, "reset", "on", ">pw", *rules)
        client.acl_log_reset()
        return f"redis://{name}:pw@127.0.0.1:{server.port}/0"

    yield make
    client.acl_deluser("shop")


def uses_all(url: str) -> dict[str, int]:
    """Do everything that a cache does, and return the errors that it counted."""

    def load(id):
        if id == "broken":
            raise LookupError(id)
        return None if id == "nobody" else id.upper()

    users = cl.CacheAside(cl.connect(url, timeout=PATIENT), load=load, ttl=60, prefix="users:")
    for _ in range(2):
        assert users.get("ada") == "ADA" and users.get("nobody") is None
        assert users.get_many(["ada", "bob"]) == {"ada": "ADA", "bob": "BOB"}
    with pytest.raises(LookupError):
        users.get("broken")
    users.warm(["cleo"])
    with suppress(cl.InvalidationPending):
        users.invalidate("ada")
    return dict(users.stats.errors_by_kind)


def test_the_rules_are_enough_for_all_that_a_cache_does(login, client):
    assert uses_all(login(cache_rules("users:"))) == {}
    assert client.acl_log() == []
    assert client.ttl("users:bob") > 0


@pytest.mark.parametrize("name", sorted(set(CACHE) - {"ping", "pexpire", "pttl"}))
def test_without_one_of_them_something_is_refused(login, client, name):
    uses_all(login([rule for rule in cache_rules("users:") if rule != f"+{name}"]))
    assert name in {entry["object"] for entry in client.acl_log()}


def test_a_lease_that_another_holds_needs_its_age_and_may_be_armed_anew(login, client):
    url = login(cache_rules("users:"))
    client.set("users:ada", "lease:somebody", px=1000)  # old: all but a second has passed
    users = cl.CacheAside(cl.connect(url, timeout=PATIENT), load=str.upper, ttl=60, prefix="users:")
    assert users.get("ada") == "ADA" and client.acl_log() == []
    for name in ("pttl", "pexpire"):
        login([rule for rule in cache_rules("users:") if rule != f"+{name}"])
        client.set("users:ada", "lease:somebody", px=1000)
        users.get("ada")
        assert name in {entry["object"] for entry in client.acl_log()}


def test_of_all_commands_no_other_may_be_sent(login, client):
    login(cache_rules("users:"))
    allowed = set()
    for name, about in client.command().items():
        words = ["users:1"] * (abs(about["arity"]) - 1)
        words[1:2] = ["0"] if name == "eval" else words[1:2]  # how many of them are keys
        try:
            if client.execute_command("ACL DRYRUN", "shop", name, *words) in (True, "OK", b"OK"):
                allowed.add(name)
        except redis.ResponseError:  # of a kind that has subcommands
            continue
    assert allowed - ALWAYS == set(CACHE)


@pytest.mark.parametrize(
    "words",
    [
        ("GET", "other:1"),
        ("SET", "other:1", "x"),
        ("EVAL", "return redis.call('GET', 'other:1')", "1", "users:1"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("CONFIG", "GET", "requirepass"),
        ("PUBLISH", "news", "x"),
        ("KEYS", "*"),
        ("FLUSHALL",),
    ],
    ids=" ".join,
)
def test_other_keys_and_commands_are_refused(login, client, words):
    other = cl.connect(login(cache_rules("users:")), timeout=PATIENT)
    client.set("other:1", "x")
    with pytest.raises(redis.ResponseError, match="(?i)permission|noperm"):
        other.execute_command(*words)
    assert client.get("other:1") == "x"


def test_a_prefix_with_marks_of_a_pattern_is_taken_as_it_is_written(login, client):
    other = cl.connect(login(cache_rules("u*r:")), timeout=PATIENT)
    other.set("u*r:1", "x")
    with pytest.raises(redis.exceptions.NoPermissionError):
        other.set("user:1", "x")


def test_who_watches_sees_the_frames_and_no_value(login, client):
    watcher = cl.connect(login(watch_rules()), timeout=PATIENT)
    client.set("users:1", "sekret", ex=60)
    for look in (observe.info, observe.commands, observe.slow, observe.latency, observe.memory,
                 observe.events, observe.keys, observe.hot_keys, observe.big_keys):  # fmt: skip
        look(watcher)
    assert observe.keys(watcher)["bytes"].notna().all()
    for words in (("GET", "users:1"), ("SET", "users:1", "x"), ("DEL", "users:1")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            watcher.execute_command(*words)


def test_all_keys_are_no_prefix_of_a_cache():
    with pytest.raises(ValueError, match="prefix must be 1 to 512 bytes"):
        cache_rules("")
