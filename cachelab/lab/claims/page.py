"""The page: all claims and verdicts as one HTML file without outside parts, to be handed on."""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from cachelab.lab import notebooks, scale
from cachelab.lab.claims.cases import HOLDS, VERDICTS, WHEN
from cachelab.lab.claims.rows import Row, counts, is_ratio, ratios
from cachelab.lab.draw import charts
from cachelab.lab.draw.canvas import alt_text, house_style
from cachelab.lab.draw.figures import environment

MARKS = dict(zip(VERDICTS, "✓◐✗?–…", strict=True))  # so that no verdict is told by colour alone
ROLES = {"claimed": "database", "predicted": "model", "measured": "cache"}


def ratio_chart(rows: Sequence[Row], name: str | None = None) -> Axes:
    """Draw the claims whose number is a ratio: claimed, predicted and measured on one axis.

    Args:
        rows: Of `on_trial`.
        name: Under which the figure is kept.
    """
    df = ratios(rows)
    drawn = [row.verdict.word for row in rows if is_ratio(row)]
    held, when = drawn.count(HOLDS), drawn.count(WHEN)
    everywhere = f"{held} hold" if held else "none holds"
    return charts.against(
        df,
        "ratio",
        "claim",
        "source",
        "ratio_low",
        "ratio_high",
        title=f"Of {len(drawn)} ratios in circulation {when} hold under a condition, "
        f"{everywhere} without",
        note="whiskers: what is claimed, and intervals of 99 %; a mark for each condition",
        roles=ROLES,
        logx=True,
        name=name,
    )


def case_chart(row: Row) -> Axes:
    """Draw one claim: what it says, what a model predicts, what was measured in each case."""
    df = row.frame()
    said = f"{row.verdict.word}: {row.claim}"
    is_log = bool((df[["value", "low", "high"]] > 0).all(axis=None)) and None
    return charts.against(
        df,
        "value",
        "case",
        "source",
        "low",
        "high",
        title=said[0].upper() + said[1:],
        note=row.origin,
        roles=ROLES | {"instead": "pipeline"},
        units={"value": row.unit},
        xlabel=row.quantity,
        logx=is_log,
    )


def export(rows: Sequence[Row], file: str | Path | None = None) -> Path:
    """Write the page and return its path, relative to here where it can be.

    Args:
        rows: Of `on_trial`.
        file: Where to; None: 15_claims.html among the charts of this run.
    """
    folder = os.environ.get("CACHELAB_CHARTS") or notebooks.SCALES["quick"]
    path = Path(file) if file is not None else Path(folder, "15_claims.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html(rows, path.parent), encoding="utf-8")
    return Path(os.path.relpath(path))


def html(rows: Sequence[Row], folder: Path) -> str:
    """Return the page as text; its links lead from a folder to the notebooks."""
    told = environment()
    words = [f"{key} {told[key]}" for key in ("cpu", "cores", "system", "python", "redis-py")]
    return _rendered(
        _PAGE,
        rows,
        folder,
        counts=counts(rows),
        chart=_inline(ratio_chart(rows)),
        machine=", ".join([*words, *([str(told["server"])] if "server" in told else [])]),
        date=told["date"],
        scale=scale(),
        style=_STYLE,
    )


def shown(rows: Sequence[Row]) -> Any:
    """Return the table of the page, as a notebook shows it."""
    from IPython.display import HTML

    text = _rendered(f"<style>{_IN_NOTEBOOK}</style>{_TABLE}", rows, notebooks.NOTEBOOKS)
    return HTML(f'<div class="cachelab-claims">{text}</div>')


def _rendered(template: str, rows: Sequence[Row], folder: Path, **more: object) -> str:
    from jinja2 import Environment, StrictUndefined

    env = Environment(autoescape=True, undefined=StrictUndefined)
    env.filters["tied"] = _tied
    place = Path(os.path.relpath(notebooks.NOTEBOOKS, folder)).as_posix()
    return env.from_string(template).render(rows=rows, marks=MARKS, notebooks=place, **more)


def _tied(text: str) -> str:
    """Return a text in which no line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(?:ns|µs|ms|s)\b|%)|(?<=\bn) (?==)|(?<=n =) ", "\u00a0", text)


def _inline(ax: Axes) -> object:
    """Return a chart as SVG that stands in a page: no prolog, no outside names, its own words."""
    from markupsafe import Markup, escape

    with house_style():
        ax.figure.savefig(text := io.StringIO(), format="svg")
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    words = escape(alt_text(ax.figure))
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{words}"', 1))


_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem;
  padding: 0 1rem; }
h1 { font-size: 1.9rem; margin: 0; } p { max-width: 48rem; }
.counts { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; list-style: none; }
.counts li { border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .8rem; }
.counts b { font-size: 1.4rem; }
figure { margin: 1.5rem 0; background: white; padding: .5rem; border-radius: .4rem; }
figure svg { width: 100%; height: auto; max-width: 60rem; display: block; margin: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; position: sticky; top: 0; background: Canvas; }
td, th { padding: .5rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td ul { margin: 0; padding-left: 1rem; } small { opacity: .75; display: block; }
.verdict { white-space: nowrap; font-weight: bold; }
tr:target { background: var(--soft); }
@media (max-width: 55rem) { thead { display: none; } tr, td { display: block; border: 0; }
  tr { border-bottom: 2px solid var(--line); padding: .6rem 0; } td { padding: .15rem 0; }
  td[data-label]::before { content: attr(data-label) ": "; opacity: .75; } }
@media print { :root { color-scheme: light; } body { margin: 0; font-size: 9pt; max-width: none; }
  tr { break-inside: avoid; } thead { display: table-header-group; } th { position: static; }
  a { color: inherit; text-decoration: none; } @page { size: landscape; margin: 12mm; } }
"""

_IN_NOTEBOOK = """
.cachelab-claims table { table-layout: fixed; width: 100%; font-size: 85%; }
.cachelab-claims :is(td, th) { text-align: left !important; vertical-align: top !important; }
.cachelab-claims th:nth-child(1) { width: 24%; } .cachelab-claims th:nth-child(2) { width: 10%; }
.cachelab-claims th:nth-child(3) { width: 32%; } .cachelab-claims th:nth-child(4) { width: 15%; }
.cachelab-claims small { display: block; opacity: .75; }
.cachelab-claims ul { margin: 0; padding-left: 1em; }
"""

_TABLE = """<table><thead><tr><th scope="col">Claim</th><th scope="col">Claimed</th>
<th scope="col">Measured, and predicted by a model</th><th scope="col">Verdict</th>
<th scope="col">Condition, and where it is tried</th></tr></thead><tbody>
{% for row in rows %}<tr id="{{ row.id }}">
<td><b>{{ row.claim }}</b><small>{{ row.quantity }}</small></td>
<td data-label="claimed">{{ row.said | tied }}</td>
<td data-label="measured">{% if row.cases %}<ul>
{% for case in row.cases %}<li>{% if case.instead %}<i>instead</i> {% endif %}{{
row.written(case) | tied }}</li>{% endfor %}</ul>{% endif %}<small>{{ row.origin }}</small></td>
<td><span class="verdict">{{ marks[row.verdict.word] }} {{ row.verdict.word }}</span>
{% if row.verdict.word == "holds when" %}<small>{{ row.verdict.speak_for | join("; ") | tied
}}</small>{% endif %}</td>
<td>{{ row.condition }}<small>{% set file, words = row.link() %}{% if file %}<a href="{{
notebooks }}/{{ file }}">{{ words }}</a>{% else %}{{ words }}{% endif %}</small></td></tr>
{% endfor %}</tbody></table>
"""

_PAGE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claims on trial</title><style>{{ style }}</style></head><body>
<h1>Claims on trial</h1>
<p>What many tutorials say of caching with Redis from Python, beside what was measured on one
machine. In small letters below a claim stands what we take it to say. A verdict follows from the
numbers: a claim holds in a case if the whole interval (99&nbsp;%) lies in what is claimed; "about"
reaches from half to double. Along a distance it holds, too, between two neighbours that have its
number between them. Another machine may give another verdict; conditions say why.</p>
<p>{{ machine }}; {{ date }}, {{ scale }} scale where nothing else is said.</p>
<ul class="counts">{% for verdict, number in counts.items() %}
<li><b>{{ number }}</b> {{ marks[verdict] }} {{ verdict }}</li>{% endfor %}</ul>
<figure>{{ chart }}</figure>
"""
    + _TABLE
    + """</body></html>
"""
)
