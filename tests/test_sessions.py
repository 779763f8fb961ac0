"""Sessions: ids nobody can guess or plant, one command a read, no lost field, log-outs that hold.

The common recipe keeps one JSON text for each user at `session:<user>`.
"""

import asyncio
import json
import re
import threading
import time

import pytest

import cachelab as cl
from cachelab.apps.sessions import AsyncSessions, Sessions


@pytest.fixture
def patient(server, client):
    """The client of a busy machine: no call of a crowd runs out of time."""
    return cl.connect(server.url, timeout=30)


@pytest.fixture
def sessions(patient):
    return Sessions(patient, ttl=60)


class Recipe:
    """As tutorials have it: one session for each user, read whole and written whole."""

    def __init__(self, client):
        self.client = client

    def store(self, user: str, data: dict) -> None:
        self.client.set(f"session:{user}", json.dumps(data), ex=3600)

    def get(self, user: str) -> dict | None:
        text = self.client.get(f"session:{user}")
        return json.loads(text) if text else None


def keys_of_sessions(client) -> list[str]:
    return [key for key in client.scan_iter() if re.fullmatch(r"session:{....}:[0-9a-f]{64}", key)]


def calls(client) -> dict[str, int]:
    """Return how often each command was called, those of this function apart."""
    stats = client.info("commandstats")
    return {name[8:]: told["calls"] for name, told in stats.items() if name != "cmdstat_info"}


def test_a_session_comes_back_and_ends(sessions):
    made = sessions.login("ada", data={"theme": "dark"}, device="laptop")
    found = sessions.get(made.id)
    assert found == made and (found.user, found.data) == ("ada", {"theme": "dark"})
    assert made.id not in repr(found)
    assert sessions.logout(made.id) is True and sessions.logout(made.id) is False
    assert sessions.get(made.id) is None and sessions.devices("ada") == []


def test_a_user_has_a_session_for_each_device_and_the_recipe_one_for_all(sessions, client):
    laptop, phone = (sessions.login("ada", device=name) for name in ("laptop", "phone"))
    sessions.update(phone.id, {"theme": "dark"})
    assert [device.device for device in sessions.devices("ada")] == ["laptop", "phone"]
    assert sessions.get(laptop.id).data == {}
    assert sessions.end_device("ada", sessions.devices("ada")[0].handle) is True
    assert sessions.get(laptop.id) is None and sessions.get(phone.id) is not None
    recipe = Recipe(client)
    recipe.store("ada", {"device": "laptop"}), recipe.store("ada", {"device": "phone"})
    assert recipe.get("ada") == {"device": "phone"}  # whoever knows the name has it, too


def test_a_handle_of_another_user_ends_nothing(sessions):
    made = sessions.login("ada")
    (device,) = sessions.devices("ada")
    assert sessions.end_device("bob", device.handle) is False and sessions.get(made.id)


def test_ids_are_random_and_redis_holds_none_of_them(sessions, client):
    ids = [sessions.login("ada").id for _ in range(50)]
    assert len({id[-43:] for id in ids}) == 50
    held = [key + client.get(key) for key in keys_of_sessions(client)]
    assert len(held) == 50
    assert not [id for id in ids if any(id[-43:] in text for text in held)]


def test_a_read_is_one_command_and_moves_the_expiry(sessions, client):
    made = sessions.login("ada")
    (key,) = keys_of_sessions(client)
    client.pexpire(key, 5000)
    client.config_resetstat()
    assert sessions.get(made.id)
    assert {name: n for name, n in calls(client).items() if "|" not in name} == {"getex": 1}
    assert 30_000 < client.pttl(key) <= 60_000


def test_a_session_lives_no_longer_than_its_age_allows_however_often_it_is_read(patient):
    now = [time.time()]
    sessions = Sessions(patient, ttl=60, max_age=100, clock=lambda: now[0])
    made = sessions.login("ada")
    (key,) = keys_of_sessions(patient)
    now[0] += 70
    assert sessions.get(made.id) and patient.pttl(key) <= 30_000
    now[0] += 31
    assert sessions.get(made.id) is None and sessions.update(made.id, {"a": 1}) is None


def test_a_log_in_gives_a_new_id_and_ends_the_one_that_may_have_been_planted(sessions):
    guest = sessions.begin({"seen": ["p-1"]})
    made = sessions.login("ada", old=guest.id, data={"theme": "dark"})
    assert made.id != guest.id and sessions.get(guest.id) is None
    assert sessions.get(made.id).data == {"seen": ["p-1"], "theme": "dark"}


def test_what_another_user_left_in_the_browser_does_not_pass_to_who_logs_in(sessions):
    bobs = sessions.login("bob", data={"card": "4242"})
    made = sessions.login("ada", old=bobs.id)
    assert sessions.get(bobs.id) is None and sessions.get(made.id).data == {}
    assert sessions.devices("bob") == []


class Crash(Exception):
    pass


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_log_in_that_broke_off_anywhere_can_be_repeated(patient, step):
    sessions = Sessions(patient)
    guest = sessions.begin({"seen": ["p-1"]})
    done, send = [], patient.execute_command

    def breaks_off(*words, **options):
        reply = send(*words, **options)
        done.append(words[0])
        if len(done) == step:
            raise Crash
        return reply

    patient.execute_command = breaks_off
    try:
        with pytest.raises(Crash):
            sessions.login("ada", old=guest.id)
    finally:
        del patient.execute_command
    assert len(done) == step and sessions.get(guest.id) is None
    made = sessions.login("ada", old=guest.id)
    assert sessions.get(made.id).data == ({"seen": ["p-1"]} if step < 3 else {})


def test_concurrent_requests_lose_no_field_and_the_recipe_all_but_one(sessions, client, together):
    made, recipe = sessions.login("ada"), Recipe(client)
    recipe.store("ada", {})
    names = [f"field-{n}" for n in range(20)]

    def write(name, all_have_read):
        sessions.get(made.id)
        all_have_read()
        sessions.update(made.id, {name: 1})
        sessions.increment(made.id, "views")

    def write_whole(name, all_have_read):
        data = recipe.get("ada")
        all_have_read()
        recipe.store("ada", data | {name: 1})

    for one in (write, write_whole):
        barrier, left = threading.Barrier(20), iter(names)
        assert together(20, lambda one=one, b=barrier, n=left: one(next(n), b.wait)) == [None] * 20
    assert sessions.get(made.id).data == dict.fromkeys(names, 1) | {"views": 20}
    assert len(recipe.get("ada")) == 1


def test_an_increment_that_is_sent_again_counts_once(sessions, together):
    made = sessions.login("ada")
    assert together(20, sessions.increment, made.id, "views", 2, "form 7") == [2] * 20
    assert sessions.increment(made.id, "views", 2) == 4


def test_a_change_does_not_bring_back_a_session_that_has_ended(sessions, client):
    made = sessions.login("ada", data={"a": 1})
    sessions.logout(made.id)
    assert sessions.update(made.id, {"b": 2}) is None and sessions.increment(made.id, "c") is None
    assert client.dbsize() == 0
    recipe = Recipe(client)  # the control: a request that had read before the log-out writes after
    recipe.store("ada", {"a": 1})
    read = recipe.get("ada")
    client.delete("session:ada")
    recipe.store("ada", read | {"b": 2})
    assert recipe.get("ada")


def test_no_session_survives_a_log_out_everywhere_that_was_there_before(sessions, together):
    before = [sessions.login("ada").id for _ in range(20)]
    others = sessions.login("bob")
    turn, first = threading.Lock(), []

    def log_in_or_out():
        with turn:
            first.append(None)
            mine = len(first)
        return sessions.logout_everywhere("ada") if mine == 50 else sessions.login("ada").id

    outcomes = together(101, log_in_or_out)
    (ended,) = [one for one in outcomes if isinstance(one, int)]
    alive = [id for id in outcomes if isinstance(id, str) and sessions.get(id)]
    assert [id for id in before if sessions.get(id)] == []
    assert ended + len(alive) == 20 + 100 and len(sessions.devices("ada")) == len(alive)
    assert sessions.logout_everywhere("ada") == len(alive)  # each that is alive can be ended
    assert not any(sessions.get(id) for id in alive) and sessions.get(others.id)


def test_a_list_that_is_written_after_the_session_lets_one_survive(client):
    """The control: the two steps of a log-in, and a log-out everywhere between them."""
    client.set("session:abc", "ada's")
    for key in client.smembers("sessions-of:ada"):
        client.delete(key)
    client.delete("sessions-of:ada")
    client.sadd("sessions-of:ada", "session:abc")
    assert client.get("session:abc") == "ada's"


def test_a_log_in_beyond_the_limit_ends_the_oldest(patient):
    sessions = Sessions(patient, max_devices=2)
    made = [sessions.login("ada", device=str(n)) for n in range(3)]
    assert [sessions.get(one.id) is None for one in made] == [True, False, False]


def test_every_key_expires_and_the_list_forgets_what_has_expired(sessions, client):
    made = sessions.login("ada")
    sessions.begin()
    assert client.dbsize() == 3 and all(client.pttl(key) > 0 for key in client.keys())
    (key,) = client.zrange(next(client.scan_iter("*:of:ada")), 0, -1)
    client.delete(key)  # as when it expires
    assert sessions.devices("ada") == [] and sessions.get(made.id) is None
    assert not client.exists(next(client.scan_iter("*:of:ada"), "none"))


ODD = {
    "": "",
    "0": "0",
    "zwölf\n{": ["", [], {}, None, {"ä": "\ud800", "/": "</script>"}],
    "nul\0": 2**60,
    "half": 0.5,
    "empty": {},
    "no": False,
}


def test_values_come_back_as_they_were_and_stay_so_when_another_field_changes(sessions):
    made = sessions.login("ada", data=ODD)
    assert sessions.get(made.id).data == ODD
    assert sessions.update(made.id, {"new": None}, remove=["0", "never"]).data["new"] is None
    assert sessions.get(made.id).data == {n: v for n, v in ODD.items() if n != "0"} | {"new": None}
    assert sessions.increment(made.id, "n", -7) == -7 and sessions.increment(made.id, "n") == -6


@pytest.mark.parametrize("id", ["", "ada", "*", "0000.zz.x", "0" * 5000, "a\r\nFLUSHALL\r\n", "é"])
def test_what_no_session_is_called_is_none_without_asking_redis(sessions, client, id):
    client.config_resetstat()
    assert sessions.get(id) is None and sessions.update(id, {"a": 1}) is None
    assert sessions.logout(id) is False and sessions.increment(id, "a") is None
    assert not {"getex", "eval", "getdel"} & calls(client).keys()


BAD = {
    "user": (lambda s, id: s.login(""), ValueError),
    "user of a number": (lambda s, id: s.login(5), TypeError),
    "id": (lambda s, id: s.get(None), TypeError),
    "data": (lambda s, id: s.login("eve", data=[1]), TypeError),
    "name of a field": (lambda s, id: s.update(id, {5: 1}), TypeError),
    "value": (lambda s, id: s.update(id, {"a": {1, 2}}), TypeError),
    "NaN": (lambda s, id: s.update(id, {"a": float("nan")}), TypeError),
    "remove": (lambda s, id: s.update(id, {}, remove="theme"), TypeError),
    "by": (lambda s, id: s.increment(id, "n", 1.5), TypeError),
    "device": (lambda s, id: s.login("eve", device=b"x"), TypeError),
    "too large": (lambda s, id: s.update(id, {"a": "x" * 70_000}), ValueError),
    "too large at first": (lambda s, id: s.begin({"a": "x" * 70_000}), ValueError),
    "no number": (lambda s, id: s.increment(id, "theme"), ValueError),
    "beyond": (lambda s, id: s.increment(id, "most"), ValueError),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_written(sessions, client, call, error):
    made = sessions.login("ada", data={"theme": "dark", "most": 2**53 - 1})
    before = client.dbsize()
    with pytest.raises(error):
        call(sessions, made.id)
    assert client.dbsize() == before and sessions.get(made.id).data == made.data


def test_a_bad_setting_and_the_other_kind_of_client_are_refused(client):
    for setting in ({"ttl": 0}, {"max_age": float("inf")}, {"max_devices": 0}, {"max_bytes": 0}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            Sessions(client, **setting)
    with pytest.raises(TypeError, match="connect_async"):
        AsyncSessions(client)


def test_two_users_never_see_each_other(server, client):
    async def main():
        aclient = cl.connect_async(server.url, timeout=30)
        sessions = AsyncSessions(aclient)
        made = {name: await sessions.login(name, data={"name": name}) for name in ("ada", "bob")}

        async def request(name):
            await sessions.increment(made[name].id, "views")
            return name, await sessions.get(made[name].id)

        seen = await asyncio.gather(*(request(name) for name in ["ada", "bob"] * 250))
        await aclient.connection_pool.disconnect()
        return seen

    seen = asyncio.run(main())
    assert all(name == found.user == found.data["name"] for name, found in seen)
    assert max(found.data["views"] for _, found in seen) == 250


def test_without_redis_a_call_says_so_and_nobody_is_taken_for_logged_out():
    with cl.Server() as server:
        sessions = Sessions(cl.connect(server.url, timeout=5))
        made = sessions.login("ada")
        server.kill()
        for call in (sessions.get, sessions.logout, lambda id: sessions.update(id, {"a": 1})):
            with pytest.raises(cl.RedisUnavailable, match="may be repeated"):
                call(made.id)
