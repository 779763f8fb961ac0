"""The Grafana dashboard: its JSON is what its Python says, its queries what Prometheus takes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cachelab import metrics
from cachelab.lab.watch import dashboard as grafana

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "monitoring/grafana/dashboards/cachelab.json"
SERVERS = list(grafana.SERVERS)


def panels(text: str) -> list[dict]:
    return [one for one in json.loads(text)["panels"] if one["type"] != "row"]


def test_the_committed_json_is_what_the_python_says():
    command = "python -m cachelab.lab.watch.dashboard > " + str(COMMITTED.relative_to(ROOT))
    assert COMMITTED.read_text(encoding="utf-8") == f"{grafana.as_json()}\n", f"run `{command}`"


def test_each_panel_says_how_to_read_it_and_has_a_place_of_its_own():
    shown = panels(grafana.as_json())
    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in shown}
    assert len(shown) == len(places) == len({one["title"] for one in shown})
    assert len({one["id"] for one in json.loads(grafana.as_json())["panels"]}) == len(shown) + 3
    assert all(one["description"] and one["fieldConfig"]["defaults"]["unit"] for one in shown)
    assert all(one["datasource"]["uid"] == "${datasource}" for one in shown)


@pytest.mark.parametrize("server", SERVERS)
def test_the_queries_are_those_of_the_panels_without_what_grafana_fills_in(server):
    said = [
        (one["title"], target["expr"])
        for one in panels(grafana.as_json(server))
        for target in one["targets"]
    ]
    asked = grafana.queries(window="20s", server=server)
    assert [title for title, _ in asked] == [title for title, _ in said]
    assert all("$" in query for _, query in said if "rate(" in query)
    assert not any("$" in query for _, query in asked)


def unknown(queries: list[tuple[str, str]]) -> set[str]:
    """Return the series that are asked for and that nothing of ours shows."""
    shown = {name for name in metrics.FAMILIES} | {f"{name}_total" for name in metrics.FAMILIES}
    shown |= {"cachelab_load_seconds_bucket"}
    return {name for _, query in queries for name in re.findall(r"\bcachelab_\w+", query)} - shown


def test_every_series_that_is_asked_for_is_one_that_is_shown():
    assert unknown(grafana.queries(server="cachelab")) == set()
    assert unknown([("", "rate(cachelab_reeds_total[1m])")]) == {"cachelab_reeds_total"}  # control


def test_a_server_that_nobody_tells_of_is_refused():
    with pytest.raises(ValueError, match="server must be one of .redis_exporter., .cachelab., not"):
        grafana.rows("datadog")


@pytest.mark.further
@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's package prometheus")
@pytest.mark.parametrize("server", SERVERS)
def test_promtool_takes_every_query_and_not_a_broken_one(server, tmp_path):
    queries = [query for _, query in grafana.queries(server=server)]
    for told, right in ((queries, True), ([*queries, "rate(cachelab_reads_total"], False)):
        recorded = [{"record": f"query:{at}", "expr": query} for at, query in enumerate(told)]
        rules = tmp_path / f"{right}.json"
        rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
        done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
        assert (done.returncode == 0) == right, done.stdout + done.stderr
