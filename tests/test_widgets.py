"""The panels do what their plain functions do."""

import pandas as pd
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


EACH = {"one by one": 1e-5, "async gather": 7e-5, "pipeline": 1e-5, "MSET": 1e-6}
RECORDED = [("one by one", 1, 0.6), ("async gather", 50, 0.05), ("pipeline", 10, 0.07), ("pipeline", 100, 0.01), ("MSET", 500, 0.002)]  # fmt: skip


@pytest.fixture
def measured():
    df = pd.DataFrame(RECORDED, columns=["method", "batch", "seconds"])
    return df.assign(count=500, trip_ms=1.1)


def seconds(df, source):
    return df[df["source"] == source].set_index("method")["seconds"].to_dict()


def test_a_batch_job_pays_a_trip_for_each_batch_begun_and_the_work_of_each_command():
    assert widgets.batch_seconds(1, 100, trip=5, each=2) == 5 + 2
    assert widgets.batch_seconds(100, 100, trip=5, each=2) == 5 + 200
    assert widgets.batch_seconds(101, 100, trip=5, each=2) == 2 * 5 + 202
    assert widgets.batch_seconds(0, 100, trip=5, each=2) == 0


def test_without_a_trip_no_batch_helps_and_without_work_the_batch_is_the_gain():
    assert widgets.batch_seconds(1000, 1, trip=0, each=2) == widgets.batch_seconds(1000, 100, trip=0, each=2)
    assert widgets.batch_seconds(1000, 1, trip=5, each=0) == 100 * widgets.batch_seconds(1000, 100, trip=5, each=0)


def test_each_method_is_predicted_with_its_own_batch_and_work(measured):
    predicted = seconds(widgets.batch_costs(measured, EACH, count=500, batch=10, trip_ms=1), "predicted")
    assert predicted == pytest.approx({
        "one by one": 0.5 + 0.005,
        "async gather": 0.01 + 0.035,
        "pipeline": 0.05 + 0.005,
        "MSET": 0.001 + 0.0005,
    })  # fmt: skip


def test_measured_bars_stand_only_where_exactly_that_was_measured(measured):
    at = lambda **chosen: seconds(  # noqa: E731
        widgets.batch_costs(measured, EACH, **{"count": 500, "batch": 10, "trip_ms": 1.1} | chosen), "measured"
    )
    assert at() == {"one by one": 0.6, "async gather": 0.05, "pipeline": 0.07, "MSET": 0.002}
    assert at(batch=100)["pipeline"] == 0.01 and "pipeline" not in at(batch=50)
    assert at(count=1000) == at(trip_ms=1.2) == {}


def test_the_sliders_offer_what_was_measured_and_what_was_not_and_redraw_in_words(measured):
    count, batch, trip_ms, picture = widgets.batch_and_round_trip(measured, EACH).children
    assert (count.value, batch.value, trip_ms.value) == (500, 100, 1.1) and 100.0 in dict(trip_ms.options).values()
    before = picture.value
    assert "measured: one by one 600 ms" in before
    trip_ms.value = 50.0
    assert picture.value != before and "measured:" not in picture.value and "trips of 50 ms" in picture.value
