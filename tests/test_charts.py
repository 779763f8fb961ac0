"""Charts: one look, labels that never touch, and pictures that come back byte for byte."""

import base64
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.text import Text
from nbconvert import HTMLExporter

from cachelab.lab import canvas, charts, figures, notebooks, roles

COMMITTED = notebooks.SCALES["full"]
RANDOM = np.random.default_rng(0)
READS = pd.DataFrame(
    {
        "outcome": ["hit"] * 90 + ["miss"] * 10,
        "seconds": np.r_[RANDOM.lognormal(-9, 0.3, 90), 2 + RANDOM.exponential(0.01, 10)],
    }
)
SEEDED = pd.DataFrame(
    {"method": ["one by one", "gather", "pipeline"], "p50": [0.142, 0.133, 0.029]}
)
SEEDED["low"], SEEDED["high"] = SEEDED["p50"] * 0.9, SEEDED["p50"] * 1.2
SWEEP = pd.DataFrame(
    [
        (rtt, method, source, 1000 / batch * rtt / 1000 + cost)
        for method, batch, cost in (
            ("one by one", 1, 0.142),
            ("gather", 50, 0.0301),
            ("pipeline", 100, 0.029),
        )
        for source, rtts in (("measured", (0, 0.5, 1, 5, 10)), ("model", np.linspace(0, 10, 30)))
        for rtt in rtts
    ],
    columns=["rtt_ms", "method", "source", "seconds"],
)
KINDS = {
    "ecdf": (READS, {"x": "seconds", "by": "outcome"}),
    "strip": (READS, {"x": "seconds", "y": "outcome"}),
    "ranking": (SEEDED, {"x": "p50", "y": "method", "low": "low", "high": "high"}),
    "against": (SEEDED.assign(of="seen"), {"x": "p50", "y": "method", "by": "of", "low": "low"}),
    "curve": (SWEEP, {"x": "rtt_ms", "y": "seconds", "by": "method"}),
    "bars": (SEEDED, {"x": "method", "y": "p50"}),
    "timeline": (READS.assign(at=range(100)), {"x": "at", "y": "seconds", "by": "outcome"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def draw(kind, **more):
    df, arguments = KINDS[kind]
    df = more.pop("df", df)
    return getattr(charts, kind)(df, **{"title": "What was found"} | arguments | more)


plain = functools.cache(draw)


def shown(ax):
    """Return (text, box in pixels) of every text that the finished figure shows."""
    ax.figure.draw_without_rendering()
    hidden = set()
    for axis, low, high in ((ax.xaxis, ax.bbox.x0, ax.bbox.x1), (ax.yaxis, ax.bbox.y0, ax.bbox.y1)):
        for tick in (
            axis.get_major_ticks()
        ):  # matplotlib keeps ticks beyond the ends of an axis and does not draw them
            at = ax.transData.transform((tick.get_loc(),) * 2)[0 if axis is ax.xaxis else 1]
            hidden |= set() if low - 1 <= at <= high + 1 else {tick.label1}
    texts = ax.figure.findobj(
        lambda one: isinstance(one, Text) and one.get_text() and one.get_visible()
    )
    return [(text.get_text(), text.get_window_extent()) for text in texts if text not in hidden]


def words(ax):
    return {text for text, _ in shown(ax)}


def touching(ax):
    """Return what goes wrong among the texts: pairs that overlap, texts that leave the figure."""
    texts = shown(ax)
    pairs = [f"{a[0]} / {b[0]}" for a, b in itertools.combinations(texts, 2) if a[1].overlaps(b[1])]
    edge = ax.figure.bbox
    return pairs + [
        text
        for text, box in texts
        if box.x0 < 0 or box.y0 < 0 or box.x1 > edge.x1 or box.y1 > edge.y1
    ]


@every_kind
def test_each_kind_returns_axes_with_its_title_and_no_texts_that_touch(kind):
    ax = draw(
        kind,
        title="A title that is long enough to be broken, wherever its chart begins and ends, "
        "over two lines",
    )
    assert "A title that" in ax.get_title(loc="left")
    assert touching(ax) == []


def test_the_test_for_touching_texts_sees_one():
    ax = draw("bars")
    ax.annotate("in the way", (0, 0.142))
    assert any(
        "in the way / 142 ms" in (pair, " / ".join(reversed(pair.split(" / "))))
        for pair in touching(ax)
    )


@every_kind
def test_each_kind_draws_in_the_axes_it_is_given(kind):
    other, ax = Figure(figsize=(14, 6)).subplots(1, 2)
    assert draw(kind, ax=ax) is ax
    assert ax.has_data() and not other.has_data()


def test_redrawing_in_a_fresh_process_with_other_settings_gives_the_same_bytes(
    tmp_path, monkeypatch, tmp_path_factory
):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    for kind in KINDS:
        draw(kind, name=kind)
    assert sorted(os.listdir(tmp_path)) == sorted(
        f"{kind}.{end}" for kind in KINDS for end in ("csv", "json", "png", "svg")
    )
    first = {file: file.read_bytes() for file in tmp_path.glob("*.svg")}
    for file in first:
        file.unlink()
    code = "import sys; from cachelab.lab import charts; charts.redraw(sys.argv[1])"
    own = tmp_path_factory.mktemp("settings")  # without a list of fonts as well: it is made anew
    (own / "matplotlibrc").write_text(
        "font.family: serif\nsvg.fonttype: none\nsvg.hashsalt: odd\n", encoding="utf-8"
    )
    other = {
        "MPLCONFIGDIR": str(own),
        "MPLBACKEND": "svg",
        "TZ": "Asia/Kolkata",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
    }
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=os.environ | other)
    assert {file: file.read_bytes() for file in tmp_path.glob("*.svg")} == first
    assert not any(b"<dc:date>" in svg for svg in first.values())


def test_the_fonts_are_those_that_matplotlib_brings_whatever_else_is_installed():
    with canvas.house_style():
        for weight in ("normal", "bold"):
            assert findfont(FontProperties(weight=weight)).startswith(matplotlib.get_data_path())


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    """The committed figures drawn again from their data: the files, and the axes by figure."""
    folder, axes = tmp_path_factory.mktemp("charts"), {}
    for end in ("json", "csv"):
        for file in COMMITTED.glob(f"*.{end}"):
            shutil.copy(file, folder)

    def save(figure, svg, title):
        axes[svg.stem] = figure.axes
        return canvas.save(figure, svg, title)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", save)
        return charts.redraw(folder), axes


def beyond(ax) -> list[str]:
    """Return the axes, x or y, along which something that was drawn lies outside."""
    off = []
    for which in "xy":
        (first, last), (low, high) = (
            sorted(getattr(box, f"interval{which}")) for box in (ax.dataLim, ax.viewLim)
        )
        room = 1e-9 * (high - low)
        off += [which] * bool(first < low - room or last > high + room)
    return off


def test_every_committed_figure_comes_back_from_its_data_byte_for_byte(redrawn):
    drawn, _ = redrawn
    assert [svg.name for svg in drawn] == sorted(svg.name for svg in COMMITTED.glob("*.svg"))
    assert [
        svg.name for svg in drawn if svg.read_bytes() != (COMMITTED / svg.name).read_bytes()
    ] == []


def test_nothing_that_a_committed_figure_shows_falls_off_its_axes(redrawn):
    _, axes = redrawn
    off = {name: [beyond(ax) for ax in each] for name, each in axes.items()}
    assert {name: which for name, which in off.items() if any(which)} == {} and len(off) > 40


@pytest.mark.parametrize("limits", [{"xlim": (0, 2)}, {"ylim": (0, 2)}, {"ylim": (1, 9)}, {}])
def test_what_falls_off_would_be_noticed(limits):
    df = pd.DataFrame({"at": [0.0, 1.0, 3.0], "loads": [0, 1, 3]})
    ax = charts.timeline(df, "at", "loads", title="Found", **limits)
    assert beyond(ax) == [name[0] for name in limits]


BROKEN = {
    "05_two-1.csv": (None, "missing"),
    "05_two.json": (None, "missing"),
    "05_two-2.csv": (lambda text: text[: len(text) // 2], "malformed .*(rows|columns)"),
    "05_two-2.csv ": (lambda text: text.replace("variant", "way"), "malformed .*columns"),
    "05_two-2.csv  ": (lambda text: text.replace("0.1,", "fast,"), "malformed .*fast"),
    "05_two.json ": (lambda text: text[:-9], "malformed"),
    "05_two.json  ": (lambda text: text.replace('"rows"', '"lines"'), "malformed .*no 'rows'"),
    "05_two.json   ": (lambda text: text.replace('"bars"', '"pie"'), "malformed .*no 'pie'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_figure_that_is_kept_by_halves_is_named_with_the_way_out(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    top, bottom = charts.panels(2, name="05_two")
    draw("ecdf", ax=top)
    df = pd.DataFrame({"variant": ["a", "b"], "seconds": [0.1, 0.2], "n": 1})
    charts.bars(df, "variant", "seconds", title="Found", ax=bottom)
    file, (damage, said) = tmp_path / name.strip(), BROKEN[name]
    text = file.read_text()
    file.unlink() if damage is None else file.write_text(damage(text))
    with pytest.raises(
        figures.FigureError, match=rf"{file.name} is {said}.*git restore {file}.*charts --only 05"
    ):
        charts.redraw(tmp_path)


def test_nothing_is_drawn_while_one_figure_is_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    draw("bars", name="05_found")
    draw("ecdf", name="06_found")
    (tmp_path / "06_found.csv").unlink()
    (tmp_path / "05_found.svg").unlink()
    with pytest.raises(figures.FigureError):
        charts.redraw(tmp_path)
    assert not (tmp_path / "05_found.svg").exists()


def test_a_folder_without_figures_is_named(tmp_path):
    with pytest.raises(figures.FigureError, match="holds no figures"):
        charts.redraw(tmp_path)
    with pytest.raises(figures.FigureError, match="nowhere is no folder"):
        charts.redraw(tmp_path / "nowhere")


def test_other_data_give_other_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    draw("bars", name="05_found")
    first = (tmp_path / "05_found.svg").read_bytes()
    data = tmp_path / "05_found.csv"
    data.write_text(data.read_text().replace("0.142", "0.143"))
    charts.redraw(tmp_path)
    assert (tmp_path / "05_found.svg").read_bytes() != first


def test_nothing_is_written_unless_charts_are_being_regenerated(tmp_path, monkeypatch):
    monkeypatch.delenv("CACHELAB_CHARTS", raising=False)
    monkeypatch.chdir(tmp_path)
    draw("bars", name="05_found")
    assert os.listdir(tmp_path) == []


FULL = """
import resource, signal, sys
import pandas as pd
from pathlib import Path
from cachelab.lab import canvas, charts
ax = charts.bars(pd.DataFrame({"name": ["a"], "loads": [1]}), "name", "loads", title="Found")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
canvas.save(ax.figure, Path("one.svg"), "Found")
"""


@pytest.mark.parametrize(("most", "left"), [(4096, []), (10**7, ["one.png", "one.svg"])])
def test_a_picture_that_a_full_disk_cuts_short_is_not_left_there(tmp_path, most, left):
    command = [sys.executable, "-c", FULL, str(most)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert sorted(os.listdir(tmp_path)) == left
    assert bool(done.returncode) == (not left) == ("OSError" in done.stderr)


def test_the_data_come_back_with_every_digit_and_type(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    df = pd.DataFrame(
        {"size": ["1", "10"], "seconds": [0.1 + 0.2, 1 / 3], "loads": [1, 2], "low": [np.nan, 0.3]}
    )
    charts.bars(df, "size", "seconds", title="Found", name="05_found")
    told = json.loads((tmp_path / "05_found.json").read_text())
    back = pd.read_csv(tmp_path / "05_found.csv", dtype=told["charts"][0]["dtypes"])
    pd.testing.assert_frame_equal(back, df, check_exact=True)


def test_two_panels_are_kept_as_one_figure_when_the_last_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    top, bottom = charts.panels(2, name="05_both")
    draw("ecdf", ax=top)
    assert os.listdir(tmp_path) == []
    draw("curve", ax=bottom)
    assert {"05_both-1.csv", "05_both-2.csv", "05_both.json", "05_both.svg"} < set(
        os.listdir(tmp_path)
    )
    first = (tmp_path / "05_both.svg").read_bytes()
    assert charts.redraw(tmp_path) == [tmp_path / "05_both.svg"]
    assert (tmp_path / "05_both.svg").read_bytes() == first


@pytest.mark.parametrize(("largest", "scale"), [(29.0, "linear"), (31.0, "log")])
@pytest.mark.parametrize("kind", ["ecdf", "strip", "ranking", "curve"])
def test_an_axis_turns_logarithmic_past_thirty_times(kind, largest, scale):
    df = pd.DataFrame({"seconds": [1.0, largest], "name": ["a", "b"], "x": [1, 2]})
    if kind == "curve":
        assert charts.curve(df, "x", "seconds", title="Found").get_yscale() == scale
    else:
        y = {} if kind == "ecdf" else {"y": "name"}
        assert getattr(charts, kind)(df, "seconds", **y, title="Found").get_xscale() == scale


@pytest.mark.parametrize(
    ("at", "ticks"), [([10, 70, 500], {"10", "70", "500"}), ([9.7, 71.3, 512], {"10", "100"})]
)
def test_ticks_stand_at_chosen_points_and_not_at_measured_ones(at, ticks):
    ax = charts.curve(
        pd.DataFrame({"keys": at, "seconds": [1, 2, 3]}),
        "keys",
        "seconds",
        title="Found",
        logx=True,
    )
    assert ticks == words(ax) & {"10", "70", "100", "500", "9.7", "71.3", "512"}


def test_bars_begin_at_zero_however_far_the_values_lie_apart():
    ax = charts.bars(
        pd.DataFrame({"name": ["a", "b"], "loads": [1, 1000]}), "name", "loads", title="Found"
    )
    assert ax.get_yscale() == "linear" and ax.get_ylim()[0] == 0


def test_bars_of_nothing_stand_at_zero():
    ax = charts.bars(
        pd.DataFrame({"name": ["a", "b"], "loads": [0, 0]}), "name", "loads", title="Found"
    )
    assert ax.get_ylim()[0] == 0 and touching(ax) == []


def test_hit_rates_run_from_0_to_100_per_cent():
    df = pd.DataFrame({"capacity": [10, 20], "hit_rate": [0.4, 0.6]})
    ax = charts.curve(df, "capacity", "hit_rate", title="Found")
    assert ax.get_ylim() == (0, 1) and "100 %" in words(ax)


def test_a_share_may_stand_on_a_logarithmic_axis():
    ax = charts.curve(
        pd.DataFrame({"bits": [1, 10], "share": [0.6, 0.01]}), "bits", "share", title="Found"
    )
    assert ax.get_yscale() == "log" and ax.get_ylim()[0] > 0 and {"1 %", "10 %"} < words(ax)


def test_times_are_written_in_the_units_people_use():
    df = pd.DataFrame({"step": ["dict", "redis", "database"], "seconds": [1e-7, 1.3e-4, 2.0]})
    assert {"100 ns", "130 µs", "2 s"} < words(charts.ranking(df, "seconds", "step", title="Found"))


def test_ticks_leave_each_other_room_where_whiskers_reach_far_beyond_the_marks():
    longest = {"way": ["a", "b", "c"], "seconds": [0.3, 0.01, 0.02], "half": [2e-4, 2e-4, 2e-4]}
    ax = charts.ranking(
        pd.DataFrame(longest), "seconds", "way", low="half", logx=True, title="Found"
    )
    assert touching(ax) == []


@every_kind
def test_the_alternative_text_has_the_finding_and_the_values(kind):
    alt = plain(kind).alt
    assert alt.startswith("What was found. ") and any(value in alt for value in ("29 ms", "2.02 s"))


def test_the_alternative_text_may_be_the_callers():
    assert draw("bars", alt="My own words.").alt == "My own words."


@pytest.fixture
def page(monkeypatch):
    """A function that returns the HTML of a notebook with one chart, as made in a folder."""
    data, metadata = draw("bars", alt='Three "<bars>"')._repr_mimebundle_()
    assert data["text/plain"] == 'Three "<bars>"'
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata)
    cell = nbformat.v4.new_code_cell("charts.bars()", outputs=[output])

    def page(template: str, folder: Path) -> str:
        monkeypatch.chdir(folder)
        exporter = HTMLExporter(template_name=template)
        return exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))[0]

    return page


@pytest.mark.parametrize("template", ["lab", "classic", "basic"])
def test_the_alternative_text_reaches_the_html_that_is_made_beside_a_notebook(template, page):
    html = page(template, notebooks.NOTEBOOKS)
    (image,) = BeautifulSoup(html, "html.parser").find_all("img")
    assert image["alt"] == 'Three "<bars>"' and image["width"] == "810"
    assert base64.b64decode(image["src"].partition(",")[2]).startswith(b"\x89PNG")


def test_elsewhere_the_default_template_leaves_it_out(page, tmp_path):
    assert 'alt="No description' in page("lab", tmp_path)  # else notebooks/lab can go


def test_pyplot_knows_nothing_of_a_chart_so_that_it_is_shown_once():
    import matplotlib.pyplot

    draw("bars")
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.parametrize("argument", ["x", "y"])
def test_an_unknown_column_is_named_with_the_columns_there_are(argument):
    with pytest.raises(ValueError, match=f"{argument}='nowhere' .* 'method', 'p50'"):
        draw("bars", **{argument: "nowhere"})


@pytest.mark.parametrize(
    "df",
    [
        READS[:0],
        READS.assign(seconds="fast"),
        READS.assign(seconds=np.nan),
        READS.assign(seconds=np.inf),
    ],
)
def test_what_cannot_be_drawn_is_refused(df):
    with pytest.raises(ValueError, match="no rows|finite numbers"):
        charts.ecdf(df, "seconds", title="Found")


def test_a_logarithmic_axis_refuses_zero():
    with pytest.raises(ValueError, match="above 0"):
        charts.curve(SWEEP, "rtt_ms", "seconds", logx=True, title="Found")


def test_a_role_looks_the_same_in_every_chart_and_two_lines_never_alike():
    names = ["hit", "cache", "mine", "yours", "miss"]
    assigned = roles.assign(names, None, roles.SPARE[0])
    assert assigned["hit"] == charts.ROLES["hit"] and assigned["miss"] == charts.ROLES["miss"]
    assert len(set(assigned.values())) == 5
    assert assigned == roles.assign(names, None, roles.SPARE[0])


def test_policies_differ_by_colour_and_are_told_apart_in_grey_by_marker_and_by_dash():
    simulated = [charts.ROLES[name] for name in ("lru", "lfu", "random", "fifo", "belady")]
    served = [charts.ROLES[f"allkeys-{name}"] for name in ("lru", "lfu", "random")]
    served += [charts.ROLES[name] for name in ("volatile-ttl", "noeviction")]
    for policies in (simulated, served):
        assert (
            len({look.color for look in policies})
            == len({look.marker for look in policies})
            == len(policies)
        )
    assert len({look.dash for look in served}) == len(served)


def test_names_take_the_role_they_are_given():
    ax = charts.bars(SEEDED, "method", "p50", title="Found", roles={"gather": "miss"})
    assert ax.patches[1].get_facecolor()[:3] == pytest.approx((0xD5 / 255, 0x5E / 255, 0))
    with pytest.raises(ValueError, match="'missing'"):
        charts.bars(SEEDED, "method", "p50", title="Found", roles={"gather": "missing"})


def test_lines_that_end_together_are_named_apart():
    df = pd.DataFrame(
        [(x, name, 1.0 + x) for name in ("one", "two", "three") for x in range(5)],
        columns=["x", "name", "y"],
    )
    ax = charts.curve(df, "x", "y", by="name", title="Found")
    assert touching(ax) == [] and {"one", "two", "three"} < words(ax)


def test_a_line_of_theory_alone_is_told_and_leaves_the_axes_their_room():
    theory = SWEEP[SWEEP["source"] == "model"].replace({"method": {"gather": "the limit"}})
    ax = draw("curve", df=pd.concat([SWEEP, theory[theory["method"] == "the limit"]]))
    ax.figure.draw_without_rendering()
    assert ax.get_position().height > 0.5 and "the limit: " in ax.alt


def test_a_timeline_keeps_to_the_limits_it_is_given_and_tells_the_highest_of_its_steps():
    df = pd.DataFrame({"at": [0.0, 1.0, 2.0], "loads": [0, 7, 1]})
    ax = charts.timeline(df, "at", "loads", steps=True, xlim=(0, 5), ylim=(0, 40), title="Found")
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 5), (0, 40))
    assert ax.alt == "Found. Loads over time: highest 7 at 1."


def test_a_timeline_whose_data_fill_little_of_a_long_axis_has_a_tick_a_decade():
    df = pd.DataFrame({"at": [0.0, 1.0, 2.0], "seconds": [0.005, 0.007, 0.02]})
    ax = charts.timeline(df, "at", "seconds", logy=True, ylim=(5e-5, 10), title="Found")
    assert {"10 ms", "100 ms"} < words(ax) and not {"20 ms", "50 ms"} & words(ax)


def test_a_timeline_of_shares_tells_the_lowest_as_well():
    df = pd.DataFrame({"requests": [0, 1000, 2000], "hit_rate": [0.7, 0.3, 0.6]})
    ax = charts.timeline(df, "requests", "hit_rate", steps=True, title="Found")
    assert ax.alt == "Found. Hit rate over time: lowest 30 % at 1,000, highest 70 % at 0."


def test_four_lines_get_a_legend_that_touches_nothing():
    df = pd.DataFrame(
        [(x, f"line {i}", i + x) for i in range(4) for x in range(5)], columns=["x", "name", "y"]
    )
    ax = charts.curve(df, "x", "y", by="name", title="Found")
    assert len(ax.get_legend().get_texts()) == 4 and touching(ax) == []


def test_values_on_crowded_bars_do_not_touch():
    crowd = [(place, name, 0.142) for place in range(6) for name in ("sync", "gather", "pipeline")]
    df = pd.DataFrame(crowd, columns=["rtt_ms", "method", "seconds"])
    ax = charts.bars(df, "rtt_ms", "seconds", by="method", title="Found")
    extents = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(extents, 2))
    assert all(extent.y1 <= ax.bbox.y1 for extent in extents)


def test_the_style_of_the_surroundings_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    draw("curve", name="plain")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "lines.linewidth": 9}):
        draw("curve", name="odd")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "odd.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()


def test_the_environment_names_the_server_and_no_place(client):
    client.ping()
    told = charts.environment()
    assert told["server"].split()[0] in ("Valkey", "Redis") and told["scale"] in ("quick", "full")
    assert {"redis-py", "hiredis", "python", "cpu", "cores", "system", "date"} < set(told)
    assert os.uname().nodename not in told.values() and os.getcwd() not in str(told)


def test_the_style_file_keeps_letters_and_lines_large_enough_for_the_back_row():
    with canvas.house_style():
        sizes = [
            matplotlib.rcParams[key]
            for key in ("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize")
        ]
        assert min(sizes) >= 13 and matplotlib.rcParams["lines.linewidth"] >= 2.2
