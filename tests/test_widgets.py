"""The panels do what their plain functions do."""

import pytest

import cachelab as cl
from cachelab.lab import widgets


@pytest.fixture
def users(client):
    return cl.CacheAside(client, load={"ada": "Ada", "empty": ""}.get, ttl=60, jitter=0, missing_ttl=5, prefix="p:")


def test_asking_twice_is_a_miss_and_then_a_hit_of_a_key_that_expires(users, client):
    first, second = (widgets.ask(users, client, "ada", "p:") for _ in range(2))
    assert (first["outcome"], second["outcome"]) == ("miss", "hit")
    assert first["value"] == second["value"] == "Ada" and first["ms"] > 0
    assert 50 < second["seconds_left"] <= first["seconds_left"] <= 60


def test_a_known_absence_is_a_hit_that_ends_sooner(users, client):
    first, second = (widgets.ask(users, client, "nobody", "p:") for _ in range(2))
    assert (first["value"], second["value"], second["outcome"]) == (None, None, "hit")
    assert 0 < second["seconds_left"] <= 5


def test_asking_goes_on_without_redis():
    with cl.Server() as server:
        client = cl.connect(server.url)
        users = cl.CacheAside(client, load=str.upper, ttl=60)
        server.kill()
        assert [widgets.ask(users, client, "ada")[part] for part in ("value", "outcome", "seconds_left")] == [
            "ADA",
            "miss",
            None,
        ]


def test_the_button_and_enter_ask_once_each_and_the_newest_answer_stands_first(users, client):
    (field, button), answers = (
        (box := widgets.ask_a_user(users, client, "ada", "p:")).children[0].children,
        box.children[1],
    )
    assert answers.value == "" and users.stats.misses == 0
    button.click()
    field.value = "nobody"
    assert users.stats.misses == 1
    field._handle_custom_msg({"event": "submit"}, [])
    assert (users.stats.misses, users.stats.hits) == (2, 0) and not button.disabled
    assert answers.value.index("nobody") < answers.value.index("Ada") < answers.value.index("60")


def test_a_bad_id_is_told_and_the_prompt_goes_on(users, client):
    box = widgets.ask_a_user(users, client, "", "p:")
    (field, button), answers = box.children[0].children, box.children[1]
    button.click()
    assert "id must be" in answers.value and not button.disabled
    field.value = "<b>&"
    button.click()
    assert "&lt;b&gt;&amp;" in answers.value and "<b>" not in answers.value and "id must be" not in answers.value
