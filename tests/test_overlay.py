"""Overlays: the figures of two machines as one, told from each other without colour."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cachelab.lab import charts, overlay
from cachelab.lab.draw.figures import FigureError
from cachelab.lab.draw.roles import SPARE, Look

MINE, THEIRS = {"cpu": "AMD EPYC", "python": "3.11.7"}, {"cpu": "Apple M3", "python": "3.11.7"}
STEPS = pd.DataFrame({"at": [0, 1, 2], "loads": [0, 30, 5], "cache": ["lease", "none", "none"]})
KINDS = {
    "ecdf": (
        pd.DataFrame({"seconds": [1e-4, 2e-4, 1.0], "read": ["hit", "hit", "miss"]}),
        ["seconds", "read"],
        {},
    ),
    "strip": (
        pd.DataFrame({"seconds": [1e-4, 2e-4, 1.0], "read": ["hit", "hit", "miss"]}),
        ["seconds", "read"],
        {},
    ),
    "ranking": (
        pd.DataFrame({"seconds": [0.2, 0.1], "method": ["threads", "pipeline"]}),
        ["seconds", "method"],
        {},
    ),
    "against": (
        pd.DataFrame({"seconds": [0.2, 0.1], "method": ["threads"] * 2, "of": ["said", "seen"]}),
        ["seconds", "method", "of"],
        {},
    ),
    "curve": (pd.DataFrame({"keys": [1, 2], "hit_rate": [0.3, 0.5]}), ["keys", "hit_rate"], {}),
    "bars": (pd.DataFrame({"order": ["DEL", "SET"], "loads": [3, 9]}), ["order", "loads"], {}),
    "timeline": (STEPS, ["at", "loads", "cache"], {"steps": True}),
    "dots": (
        pd.DataFrame({"began": [0, 1, 2], "seconds": [0.1, 0.2, 0.3]}),
        ["began", "seconds"],
        {},
    ),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that draws charts into a folder as if on a machine of that environment.

    It returns the folder.
    """

    def drawn(folder, environment, kinds=("curve",), times=1.0):
        monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path / folder))
        for kind in kinds:
            df, columns, more = KINDS[kind]
            df = df.assign(
                **{column: df[column] * times for column in {"seconds", "loads"} & set(df.columns)}
            )
            draw = getattr(charts, "timeline" if kind == "dots" else kind)
            draw(df, *columns, title=f"Found {times:g}", name=kind, **more)
            told = json.loads((tmp_path / folder / f"{kind}.json").read_text())
            (tmp_path / folder / f"{kind}.json").write_text(
                json.dumps(told | {"environment": environment})
            )
        return tmp_path / folder

    return drawn


def words(svg):
    return " ".join(
        re.search("<dc:description>(.*?)</dc:description>", svg.read_text(), re.S)[1].split()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_chart_is_drawn_for_two_machines_with_words_that_name_both(
    kind, machine, tmp_path
):
    folders = machine("mine", MINE, [kind]), machine("theirs", THEIRS, [kind], times=3)
    svg = overlay.overlay(*folders, tmp_path / "both")[kind]
    assert "AMD EPYC: Found 1. " in words(svg) and "Apple M3: Found 3. " in words(svg)
    with Image.open(svg.with_suffix(".png")) as png:
        assert np.asarray(png.convert("L")).std() > 5


def test_each_series_of_the_second_machine_is_hollow_and_stands_after_that_of_the_first(machine):
    df, columns, more = KINDS["timeline"]
    chart = {
        "kind": "timeline",
        "df": df,
        "arguments": {"x": "at", "y": "loads", "by": "cache", "title": "T"} | more,
    }
    [(_, both, given)] = overlay._drawings((chart, chart), ("mine", "theirs"))
    assert list(dict.fromkeys(both[given["by"]])) == [
        "lease, mine",
        "lease, theirs",
        "none, mine",
        "none, theirs",
    ]
    first, second = given["roles"]["lease, mine"], given["roles"]["lease, theirs"]
    assert (first.color, first.marker, first.dash) == (second.color, second.marker, second.dash)
    assert second.hollow and not first.hollow and first.color == SPARE[0].color


def test_a_hollow_look_reads_in_grey_as_a_line_half_as_thick_and_a_marker_filled_with_white():
    hollow = Look("#000000", "o", hollow=True)
    assert hollow.mark["markerfacecolor"] == hollow.fill["facecolor"] == "white"
    assert hollow.stroke["linewidth"] <= 2.6 / 2 and "linewidth" not in Look("#000000", "o").stroke


def test_dots_of_two_machines_stand_in_two_panels_with_the_same_axes(machine):
    df = KINDS["dots"][0]
    pair = [
        {
            "kind": "timeline",
            "df": df * times,
            "arguments": {"x": "began", "y": "seconds", "title": "T"},
        }
        for times in (1, 100)
    ]
    one, two = (
        charts.timeline(df, **given)
        for _, df, given in overlay._drawings(tuple(pair), ("mine", "theirs"))
    )
    assert (
        one.get_xlim() == two.get_xlim()
        and one.get_ylim() == two.get_ylim()
        and one.get_yscale() == two.get_yscale()
    )
    assert one.get_ylim()[0] < 0.1 and one.get_ylim()[1] > 30


def test_the_small_print_says_how_each_machine_is_drawn_and_what_both_have(machine, tmp_path):
    notes = overlay._notes((MINE, THEIRS), ("AMD EPYC", "Apple M3"), is_overlaid=True)
    assert notes == [
        "filled and thick: AMD EPYC",
        "hollow and thin: Apple M3",
        "both: Python 3.11.7",
    ]


@pytest.mark.parametrize(
    ("differs", "names"),
    [
        ({"cpu": ("Intel(R) Xeon(R) CPU E5-2670 @ 2.60GHz", "AMD")}, ("Intel Xeon E5-2670", "AMD")),
        ({"server": ("Valkey 9.1.2", "Redis 8.0.1")}, ("Valkey 9.1.2", "Redis 8.0.1")),
        ({"cores": (2, 8), "date": ("2026-11-23", "2026-11-25")}, ("2 cores", "8 cores")),
        ({"date": ("2026-11-23", "2026-11-25")}, ("2026-11-23", "2026-11-25")),
        ({}, ("first run", "second run")),
    ],
)
def test_machines_are_named_by_the_first_thing_in_which_they_differ(differs, names):
    first, second = (MINE | {part: values[i] for part, values in differs.items()} for i in range(2))
    assert overlay.machines(first, second) == names


def test_only_figures_that_both_have_are_drawn_and_other_charts_under_one_name_are_not(
    machine, tmp_path, monkeypatch
):
    mine, theirs = (
        machine("mine", MINE, ["curve", "bars"]),
        machine("theirs", THEIRS, ["bars", "strip"]),
    )
    monkeypatch.setenv("CACHELAB_CHARTS", str(theirs))
    charts.ecdf(KINDS["ecdf"][0], "seconds", title="Found", name="curve")
    drawn = overlay.overlay(mine, theirs, tmp_path / "both")
    assert drawn == {"bars": tmp_path / "both" / "bars.svg", "curve": None}
    assert sorted(os.listdir(tmp_path / "both")) == ["bars.png", "bars.svg"]


def test_folders_that_cannot_be_laid_over_one_another_are_named(machine, tmp_path):
    mine, theirs = machine("mine", MINE, ["curve"]), machine("theirs", THEIRS, ["bars"])
    for other, said in (
        (mine, "folder of both"),
        (theirs, "no figure in common"),
        (tmp_path / "no", "no is no folder"),
    ):
        with pytest.raises(FigureError, match=said):
            overlay.overlay(mine, other, tmp_path / "both")
