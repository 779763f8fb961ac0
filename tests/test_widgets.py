"""The panels do what their plain functions do."""

import asyncio
import base64
import gc
import io
import re
import signal
import threading
import time
import weakref

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_output
from PIL import Image

import cachelab as cl
from cachelab.lab import charts, dashboard, display, layout, notebooks, widgets, workload
from cachelab.lab.panels import stills


@pytest.fixture
def users(client):
    return cl.CacheAside(
        client, load={"ada": "Ada", "empty": ""}.get, ttl=60, jitter=0, missing_ttl=5, prefix="p:"
    )


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
        answer = widgets.ask(users, client, "ada")
    assert (answer["value"], answer["outcome"], answer["seconds_left"]) == ("ADA", "miss", None)


def test_the_button_and_enter_ask_once_each_and_the_newest_answer_stands_first(users, client):
    row, answers = widgets.ask_a_user(users, client, "ada", "p:").children
    field, button = row.children
    assert answers.value == "" and users.stats.misses == 0
    button.click()
    field.value = "nobody"
    assert users.stats.misses == 1
    field._handle_custom_msg({"event": "submit"}, [])
    assert (users.stats.misses, users.stats.hits) == (2, 0) and not button.disabled
    assert answers.value.index("nobody") < answers.value.index("Ada")


def test_a_bad_id_is_told_and_the_prompt_goes_on(users, client):
    row, answers = widgets.ask_a_user(users, client, "", "p:").children
    field, button = row.children
    button.click()
    assert "id must be" in answers.value and not button.disabled
    field.value = "<b>&"
    button.click()
    assert (
        "&lt;b&gt;&amp;" in answers.value
        and "<b>" not in answers.value
        and "id must be" not in answers.value
    )


# Pictures that are drawn again


def line(title="Short", high=1.0, **look):
    df = pd.DataFrame({"n": [0, 1], "seconds": [0, high]})
    return charts.curve(df, "n", "seconds", title=title, **look)


def spot(ax):
    return tuple(ax.get_position().bounds)


def words(ax):
    return [
        *ax.get_xticklabels(),
        *ax.get_yticklabels(),
        ax.xaxis.label,
        ax.yaxis.label,
        ax.title,
        ax._left_title,
    ]


def test_a_frame_keeps_axes_and_title_in_place_where_a_chart_alone_would_move_them():
    frame, long = (
        layout.Frame(),
        "A title so long that it needs a second line above the chart, as titles often do",
    )
    alone = {spot(line()), spot(line(long))}
    framed = [frame.draw(lambda title=title: line(title)) for title in ("Short", long, "Short")]
    titles = [ax._left_title.get_window_extent() for ax in framed]
    assert len(alone) == 2 and len({spot(ax) for ax in framed}) == 1
    assert {title.x0 for title in titles} == {titles[0].x0} and {title.y0 for title in titles} == {
        titles[0].y0
    }


@pytest.mark.parametrize(
    "wide", [{"high": 123_456.0}, {"title": "three lines of it " * 9}], ids=["ticks", "title"]
)
def test_a_frame_takes_the_room_that_a_chart_needs_and_keeps_it(wide):
    frame = layout.Frame()
    narrow, full, again = (frame.draw(lambda kind=kind: line(**kind)) for kind in ({}, wide, {}))
    for text in words(full):
        box = text.get_window_extent()
        assert not text.get_text() or (
            0 <= box.x0 and 0 <= box.y0 and box.y1 <= full.figure.bbox.height
        )
    assert spot(narrow) != spot(full) == spot(again)


def test_a_frame_follows_the_size_of_a_figure():
    frame = layout.Frame()
    few, many = (
        pd.DataFrame({"place": list("abcdefghijkl")[:n], "seconds": [1.0] * n}) for n in (2, 12)
    )
    frame.draw(lambda: charts.ranking(few, "seconds", "place", title="Few"))
    tall = frame.draw(lambda: charts.ranking(many, "seconds", "place", title="Many"))
    assert spot(tall)[1] > 0 and all(
        text.get_window_extent().y0 > 0 for text in tall.get_yticklabels()
    )


def test_a_picture_has_its_size_before_it_is_decoded_and_carries_the_alt_text():
    picture = display.Picture()
    picture.show(lambda: line(alt="Up & up"))
    assert 'width="810" height="450"' in picture.value and 'alt="Up &amp; up"' in picture.value
    assert picture.children[0].value == picture.value


@pytest.mark.parametrize("slider", [
    ipywidgets.FloatSlider(1, min=1, max=123_456),
    ipywidgets.FloatLogSlider(1, base=10, min=0, max=5.1),
    ipywidgets.SelectionSlider(options=[("low", 1.0), ("middle", 2.0), ("high", 123_456.0)]),
], ids=lambda slider: type(slider).__name__)  # fmt: skip
def test_a_panel_has_room_for_the_ends_of_its_sliders_before_it_is_shown(slider):
    drawn = []
    box = widgets.panel(lambda high: drawn.append(line(high=high)) or drawn[-1], high=slider)
    shown, picture = spot(drawn[-1]), box.children[-1].value
    slider.value = 10**5.1 if hasattr(slider, "base") else 123_456
    assert spot(drawn[-1]) == shown and box.children[-1].value != picture


class Cycle:
    def __init__(self):
        self.me = self


@pytest.fixture
def unfrozen():
    yield
    gc.unfreeze()


@pytest.mark.parametrize("freeze", [False, True], ids=["panel", "control"])
def test_what_was_there_before_a_panel_is_collected_when_it_is_gone(freeze, unfrozen):
    cycle = Cycle()
    seen = weakref.ref(cycle)
    widgets.panel(line, high=ipywidgets.FloatSlider(1, min=1, max=2))
    if freeze:
        gc.freeze()
    del cycle
    gc.collect()
    assert (seen() is None) is not freeze


def test_nothing_is_collected_while_a_picture_is_drawn():
    seen = []
    slider = ipywidgets.FloatSlider(1, min=1, max=2)
    widgets.panel(lambda high: seen.append(gc.isenabled()) or line(high=high), high=slider)
    seen.clear()
    slider.value = 2
    assert seen == [False] and gc.isenabled()


@pytest.mark.parametrize("make", [
    lambda: widgets.cost_of_a_hit(get=0), lambda: widgets.cost_of_a_hit(hit_rate=True),
    lambda: widgets.ttl_and_staleness(ttl=-1), lambda: widgets.stampede(readers=0),
    lambda: widgets.break_the_server({}, {}, seconds=0), lambda: widgets.how_big_a_cache(keys=2.5),
    lambda: widgets.prefetch_and_price("tea"), lambda: widgets.prefetch_and_price(budget=3),
    lambda: widgets.ask_a_user(None, None, rows=0), lambda: widgets.kill_the_worker(seconds=0),
    lambda: widgets.watch_a_server(seconds=0),
])  # fmt: skip
def test_a_panel_refuses_a_number_that_makes_no_sense(make):
    with pytest.raises((ValueError, TypeError), match="must be"):
        make()


EACH = {"one by one": 1e-5, "async gather": 7e-5, "pipeline": 1e-5, "MSET": 1e-6}
RECORDED = [
    ("one by one", 1, 0.6),
    ("async gather", 50, 0.05),
    ("pipeline", 10, 0.07),
    ("pipeline", 100, 0.01),
    ("MSET", 500, 0.002),
]


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
    assert widgets.batch_seconds(1000, 1, trip=0, each=2) == widgets.batch_seconds(
        1000, 100, trip=0, each=2
    )
    assert widgets.batch_seconds(1000, 1, trip=5, each=0) == 100 * widgets.batch_seconds(
        1000, 100, trip=5, each=0
    )


def test_each_method_is_predicted_with_its_own_batch_and_work(measured):
    predicted = seconds(
        widgets.batch_costs(measured, EACH, count=500, batch=10, trip_ms=1), "predicted"
    )
    assert predicted == pytest.approx({
        "one by one": 0.5 + 0.005,
        "async gather": 0.01 + 0.035,
        "pipeline": 0.05 + 0.005,
        "MSET": 0.001 + 0.0005,
    })  # fmt: skip


def test_measured_bars_stand_only_where_exactly_that_was_measured(measured):
    at = lambda **chosen: seconds(  # noqa: E731
        widgets.batch_costs(measured, EACH, **{"count": 500, "batch": 10, "trip_ms": 1.1} | chosen),
        "measured",
    )
    assert at() == {"one by one": 0.6, "async gather": 0.05, "pipeline": 0.07, "MSET": 0.002}
    assert at(batch=100)["pipeline"] == 0.01 and "pipeline" not in at(batch=50)
    assert at(count=1000) == at(trip_ms=1.2) == {}


def test_what_the_dashboard_reads_from_a_chart_gives_the_lines_of_that_chart_again():
    measured, each = dashboard.recorded()
    lines = pd.read_csv(notebooks.SCALES["full"] / "05_round_trip.csv").query("source == 'model'")
    count, batches = (
        measured["count"].max(),
        dict(zip(measured["method"], measured["batch"], strict=True)),
    )
    for row in lines.itertuples():
        seconds = widgets.batch_seconds(
            count, batches[row.variant], row.trip_ms / 1000, each[row.variant]
        )
        assert seconds == pytest.approx(row.p50)


def test_the_sliders_offer_what_was_measured_and_what_was_not_and_redraw_in_words(measured):
    count, batch, trip_ms, picture = widgets.batch_and_round_trip(measured, EACH).children
    assert (count.value, batch.value, trip_ms.value) == (500, 100, 1.1) and 100.0 in dict(
        trip_ms.options
    ).values()
    before = picture.value
    assert "measured: one by one 600 ms" in before
    trip_ms.value = 50.0
    assert (
        picture.value != before
        and "measured:" not in picture.value
        and "trips of 50 ms" in picture.value
    )


def test_the_ttl_panel_says_what_the_chosen_ttl_costs_and_follows_its_sliders():
    read_rate, change_rate, ttl, picture = widgets.ttl_and_staleness(5, 0.5, 0.6).children
    assert "75 % of the reads hit, 10.2 % are stale" in picture.value
    ttl.value = 6.0
    assert "TTL 6 s: 96.8 % of the reads hit" in picture.value


def test_moving_the_hit_rate_redraws_the_cost_of_a_hit():
    panel = widgets.cost_of_a_hit(get=0.001, load=0.009, hit_rate=0.5)
    slider, picture = panel.children[0], panel.children[-1]
    assert 'alt="50 % hits: mean 6 ms, p95 11 ms; no cache 9 ms.' in picture.value
    slider.value = 95
    assert 'alt="95 % hits: mean 1.5 ms, p95 1 ms; no cache 9 ms.' in picture.value


def test_the_stampede_panel_tells_the_loads_of_its_technique_and_draws_again():
    box = widgets.stampede()
    technique, readers, load, picture = box.children
    assert "nothing, 40 readers" in picture.value
    before = picture.value
    technique.value = "lease"
    assert "lease, 40 readers" in picture.value != before
    readers.value, load.value = 200, 100.0
    assert "lease, 200 readers" in picture.value and "highest 1 at" in picture.value


def test_the_hit_rates_of_a_policy_are_simulated_beside_its_theory_and_perfect_knowledge():
    df = widgets.hit_rate_and_capacity("LRU", 0.9, share=0.1, keys=1000, requests=10_000)
    shares, (_, capacity, rate, source) = workload.popularity(1000, 0.9), df.iloc[-1]
    assert (capacity, source) == (100, "chosen") and rate == pytest.approx(
        workload.che(shares, 100), abs=0.03
    )
    model = df[df["source"] == "model"].set_index(["policy", "capacity"])["hit_rate"]
    assert (
        model["LRU", 100]
        == workload.che(shares, 100)
        < model["ideal", 100]
        == workload.ideal_lfu(shares, 100)
    )


def test_the_capacity_panel_follows_policy_skew_and_room():
    policy, skew, share, picture = widgets.how_big_a_cache(skew=0.9, share=0.1).children
    assert "LRU, room for 10 % of 1,000 keys" in picture.value and "at skew 0.9" in picture.value
    policy.value, skew.value, share.value = "SIEVE", 1.2, share.options[-1][1]
    assert "SIEVE, room for 100 % of 1,000 keys" in picture.value and "at skew 1.2" in picture.value


def test_prefetch_gains_hits_where_reads_follow_each_other_and_not_where_they_are_shuffled():
    df = widgets.prefetch_gains("sessions", confidence=0.2, budget=5).set_index(["reads", "what"])
    hits, loads = (df["of_100"].xs(what, level="what") for what in ("hits gained", "more loads"))
    assert hits["as they are"] > 2 > hits["shuffled"] and loads["as they are"] > 20


def test_a_smaller_budget_adds_fewer_loads():
    spent = [widgets.prefetch_gains("sessions", 0.2, budget)["of_100"][1] for budget in (0.05, 5)]
    assert 0 < spent[0] < spent[1] / 2


def test_the_panel_of_gain_and_price_follows_trace_confidence_and_budget():
    trace, confidence, budget, picture = widgets.prefetch_and_price(progress=False).children
    seen = [picture.value]
    for control, value in ((budget, 5.0), (confidence, 0.0), (trace, "independent")):
        control.value = value
        seen.append(picture.value)
    assert len(set(seen)) == 4 and "independent: +" in seen[-1]


def test_a_long_simulation_shows_its_progress_and_ends_at_an_interrupt(capsys):
    sent = []

    def stop():
        sent.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    threading.Timer(3, stop).start()
    with pytest.raises(KeyboardInterrupt):
        widgets.how_big_a_cache(keys=1001, requests=100_000)  # which would take a minute
    assert time.monotonic() - sent[0] < 10 and "Simulating" in capsys.readouterr().err


# Where no kernel runs

VIEW = "application/vnd.jupyter.widget-view+json"


def shown(panel):
    """Return what a notebook keeps of a panel: the bundle, and the picture's pixels."""
    bundle, about = panel._repr_mimebundle_()
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    return bundle, about["image/png"], np.asarray(picture)


@pytest.mark.parametrize("name", ["cost", "batch", "ask", "break", "kill", "visit"])
def test_a_panel_carries_a_picture_of_its_controls_and_the_words_that_it_needs_a_kernel(
    name, measured, users, client
):
    panel = {
        "cost": widgets.cost_of_a_hit,
        "batch": lambda: widgets.batch_and_round_trip(measured, EACH),
        "ask": lambda: widgets.ask_a_user(users, client),
        "break": lambda: widgets.break_the_server({"CacheAside": guarded}, ROWS),
        "kill": widgets.kill_the_worker,
        "visit": widgets.visit_a_patient,
    }[name]()
    bundle, about, pixels = shown(panel)
    said = {
        "cost": "hit rate (%) 90",
        "batch": "users 500, batch of the pipeline 100, round trip (ms) 1.1. 500 users",
        "ask": "User id user-42, Ask.",
        "break": "application CacheAside, start, kill, restart",
        "kill": "writes wait in a list, popped, start, kill -9, worker, stop.",
        "visit": "patient 1, visit, look, hint, leave, cause ?, cure ?, try.",
    }[name]
    assert stills.SENTENCE in bundle["text/plain"] and said in bundle["text/plain"]
    assert VIEW in bundle and about["alt"] == bundle["text/plain"]
    assert about["width"] == 810 and pixels.shape[1] / pixels.shape[0] == pytest.approx(
        810 / about["height"], rel=0.01
    )
    assert (pixels.min(axis=2) < 100).any(axis=1).sum() > 20  # rows with ink


def test_the_picture_of_a_panel_follows_its_controls():
    panel = widgets.cost_of_a_hit()
    words, before = shown(panel)[0]["text/plain"], shown(panel)[2]
    panel.children[0].value = 10
    assert "hit rate (%) 10" in shown(panel)[0]["text/plain"] != words
    top = slice(0, before.shape[0] // 5)  # where the controls are
    assert (shown(panel)[2][top] != before[top]).any()


def test_where_a_widget_is_taken_out_its_picture_stays():
    bundles = shown(widgets.cost_of_a_hit())[0], ipywidgets.IntSlider()._repr_mimebundle_()
    outputs = [new_output("display_data", data=bundle) for bundle in bundles]
    (left,) = notebooks.without_widgets(outputs)
    assert set(left.data) == {"image/png", "text/plain"}


def guarded(url):
    return cl.CacheAside(cl.connect(url, check=False), load=ROWS.get, ttl=60).get


ROWS = {f"id{n}": f"value {n}" for n in range(10)}


def test_buttons_break_and_mend_a_server_and_nothing_is_left_after_stop():
    before = threading.active_count()
    which, row, told, picture = widgets.break_the_server({"CacheAside": guarded}, ROWS).children
    press = {button.description: button.click for button in row.children}
    press["kill"](), press["stop"]()
    assert threading.active_count() == before and (picture.value, told.value) == (
        "",
        "Nothing runs. Press start.",
    )
    press["start"](), press["start"]()
    assert which.disabled and threading.active_count() == before + 4
    press["kill"]()
    assert told.value == "The server is dead."
    press["thaw"]()
    assert "restart() brings it back" in told.value
    press["restart"](), press["freeze"](), press["thaw"](), time.sleep(0.1), press["stop"]()
    assert "0 lost" in picture.value and "Nothing runs" in told.value and not which.disabled
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_the_readers_are_drawn_again_between_cells_and_end_by_themselves():
    async def main():
        which, row, _, picture = widgets.break_the_server(
            {"CacheAside": guarded}, ROWS, seconds=1.5
        ).children
        ended, seen = asyncio.Event(), []
        picture.observe(lambda change: seen.append(change["new"]), "value")
        which.observe(lambda change: change["new"] or ended.set(), "disabled")
        row.children[0].click()
        await ended.wait()
        assert len(set(seen)) > 1 and seen[0].startswith("<img") and not which.disabled

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_button_does_to_its_node_what_is_chosen_and_roles_are_told():
    before = threading.active_count()
    panel = widgets.break_a_node(guarded, ROWS)
    which, ends, does, row, told, picture = panel.children
    press = {button.description: button.click for button in (*ends.children, *row.children)}
    press["node 1"]()
    assert told.value == "Nothing runs. Press start."
    which.value = "a primary, 2 replicas, 3 Sentinels"
    press["start"]()
    assert which.disabled and told.value.startswith("node 1 primary, node 2 replica")
    press["node 2"]()
    assert "node 2 away" in told.value and "node 6 sentinel" in told.value
    does.value = "thaw"
    press["node 2"]()
    assert "restart() brings it back" in told.value
    does.value = "restart"
    press["node 2"]()
    assert "node 2 replica" in told.value
    press["stop"]()
    assert "0 lost" in picture.value and told.value == "Nothing runs. Press start."
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("form", "lost"), [("a list, popped", r"\d+"), ("a stream, by WriteBehind", "0")]
)  # what a worker has popped when it is killed, is lost
def test_a_worker_is_killed_and_another_started_and_nothing_is_left_after_stop(form, lost):
    before = threading.active_count()
    which, row, told, picture = widgets.kill_the_worker().children
    press = {button.description: button.click for button in row.children}
    press["kill -9"]()
    assert told.value == "Nothing runs. Press start."
    which.value = form
    press["start"](), press["start"]()
    assert which.disabled and threading.active_count() == before + 1
    assert told.value.startswith("A worker works: ")
    press["kill -9"]()
    assert re.fullmatch(rf"No worker: \d+ acknowledged, 0 refused, {lost} lost\.", told.value)
    press["worker"]()
    assert told.value.startswith("A worker works: ")
    press["stop"]()
    assert re.search(rf"in Redis, {lost} lost", picture.value)
    assert told.value == "Nothing runs. Press start."
    assert threading.active_count() == before and not which.disabled


def test_a_server_in_use_is_loaded_and_its_numbers_are_there_until_stop():
    before = threading.active_count()
    which, row, numbers, told, _ = widgets.watch_a_server().children
    press = {button.description: button.click for button in row.children}
    press["scan"]()
    assert told.value == "Nothing runs. Press start."
    press["start"](), press["scan"]()
    assert told.value.endswith("with scan on top.") and which.disabled
    deadline = time.monotonic() + 30
    while "clients" not in numbers.value and time.monotonic() < deadline:
        time.sleep(0.1)
        press["load"]()
    assert "<td>" in numbers.value
    press["stop"]()
    assert told.value == "Nothing runs. Press start." and threading.active_count() == before


def test_a_patient_is_visited_looked_at_and_diagnosed():
    which, ask, cause, cure, tries, told, numbers = widgets.visit_a_patient().children
    press = {button.description: button.click for button in (*ask.children, *tries.children)}
    press["look"]()
    assert told.value.startswith("Nobody is here")
    which.value = 4
    press["visit"](), press["look"]()
    assert "16 workers, 1 connections" in numbers.value and "NaN" not in numbers.value
    press["hint"](), press["hint"]()
    assert told.value.startswith("Hint 2: How many workers share")
    cause.value, cure.value = "a value that is too big", "send more commands in a pipeline"
    press["try"]()
    assert told.value.count("not yet") == 2
    cause.value, cure.value = "too few connections in the pool", "open a connection for each worker"
    press["try"]()
    assert told.value.count("held: ") == 2
    press["leave"]()
    assert told.value.startswith("Nobody is here") and numbers.value == ""
