"""The Grafana dashboard as typed Python: what each panel asks Prometheus, and why one looks at it.

``python -m cachelab.lab.watch.dashboard`` prints its JSON, which stands in monitoring/ for who does
not want the extra ``grafana``. Caches and writes are those of `cachelab.metrics`; the server's
panels ask for redis_exporter's names, or for those of ``python -m cachelab metrics``.
"""

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from cachelab import _check
from cachelab._extras import need

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import QueryVariable
    from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
    from grafana_foundation_sdk.models.dashboard import Dashboard, DataSourceRef

SERVERS = {"redis_exporter": "redis_", "cachelab": "cachelab_server_"}
RATE = "$__rate_interval"  # what Grafana makes of it: at least four scrapes
HEIGHT, WIDTH = 8, 8  # of a panel; the page is 24 wide


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: What it shows.
        unit: Grafana's name of the unit.
        queries: {legend: PromQL}.
        reads: How to read it, which the panel shows at its corner.
        most: The upper end of its axis, None for what comes.
    """

    title: str
    unit: str
    queries: dict[str, str]
    reads: str
    most: float | None = None


def _rate(series: str, by: str, more: str = "") -> str:
    of = "writes" if series.startswith("cachelab_writes") else "cache"
    return f'sum by ({by}) (rate({series}{{{of}=~"${of}"{more}}}[{RATE}]))'


def _most(series: str, by: str) -> str:
    of = "writes" if series.startswith("cachelab_writes") else "cache"
    return f'max by ({by}) ({series}{{{of}=~"${of}"}})'


def _quantile(share: float) -> str:
    return f"histogram_quantile({share}, {_rate('cachelab_load_seconds_bucket', 'cache, le')})"


def _caches() -> list[Panel]:
    hits = _rate("cachelab_reads_total", "cache", ',outcome="hit"')
    return [
        Panel(
            "Hit rate",
            "percentunit",
            {"{{cache}}": f"{hits} / {_rate('cachelab_reads_total', 'cache')}"},
            "A share of reads, no line where nothing is read. What matters is how many loads the "
            "database gets: from 99 to 98 % they double.",
            most=1,
        ),
        Panel(
            "Reads",
            "ops",
            {"{{cache}} {{outcome}}": _rate("cachelab_reads_total", "cache, outcome")},
            "Each read is one hit or one miss.",
        ),
        Panel(
            "Loads",
            "ops",
            {"{{cache}} {{outcome}}": _rate("cachelab_loads_total", "cache, outcome")},
            "What the database is asked, by how it ended. Many that are refused: ids are "
            "invalidated as they load. Unstored: Redis took no lease or no value.",
        ),
        Panel(
            "Seconds of a load",
            "s",
            {"{{cache}} p50": _quantile(0.5), "{{cache}} p99": _quantile(0.99)},
            "Measured where the load happens, and told as well as the buckets allow.",
        ),
        Panel(
            "Loads at once, reads that wait",
            "short",
            {
                "{{cache}} loads running": (
                    'sum by (cache) (cachelab_loads_running{cache=~"$cache"})'
                ),
                "{{cache}} waits a second": _rate("cachelab_waits_total", "cache"),
            },
            "A crowd that waits for few loads is a stampede that was held.",
        ),
        Panel(
            "Errors",
            "ops",
            {"{{cache}} {{kind}}": _rate("cachelab_errors_total", "cache, kind")},
            "Answers that Redis did not give; reads came from the database all the same.",
        ),
        Panel(
            "Breakers",
            "short",
            {"{{cache}} {{server}}": _most("cachelab_breaker_open", "cache, server")},
            "1 is open: that server is left alone, and asked again twice a second.",
            most=1,
        ),
        Panel(
            "Pending deletes",
            "short",
            {"{{cache}}": 'sum by (cache) (cachelab_pending_deletes{cache=~"$cache"})'},
            "Until they have gone through, other processes may serve old values.",
        ),
        Panel(
            "Stale sets refused",
            "ops",
            {"{{cache}}": _rate("cachelab_stale_sets_refused_total", "cache")},
            "Each would have been an old value, kept for its whole ttl.",
        ),
    ]


def _writes() -> list[Panel]:
    return [
        Panel(
            "Writes that wait",
            "short",
            {
                "{{writes}} waiting": _most("cachelab_writes_waiting", "writes"),
                "{{writes}} set aside": _most("cachelab_writes_set_aside", "writes"),
            },
            "Acknowledged and not in the database; set aside after several failures.",
        ),
        Panel(
            "Lag",
            "s",
            {"{{writes}}": _most("cachelab_writes_lag_seconds", "writes")},
            "How long the oldest of them has waited. It grows a second a second where no worker "
            "works.",
        ),
        Panel(
            "Writes put and applied",
            "ops",
            {
                "{{writes}} {{outcome}}": _rate("cachelab_writes_put_total", "writes, outcome"),
                "{{writes}} applied": _rate("cachelab_writes_applied_total", "writes"),
            },
            "Where puts run ahead of what is applied, the stream fills.",
        ),
    ]


def _server(prefix: str) -> list[Panel]:
    def rate(name: str) -> str:
        return f"rate({prefix}{name}_total[{RATE}])"

    return [
        Panel(
            "Memory",
            "bytes",
            {
                "{{instance}} {{server}} used": f"{prefix}memory_used_bytes",
                "{{instance}} {{server}} limit": f"{prefix}memory_max_bytes",
            },
            "At the limit Redis evicts, or under noeviction refuses writes. A limit of 0 is none.",
        ),
        Panel(
            "Keys that leave",
            "ops",
            {
                "{{instance}} {{server}} evicted": rate("evicted_keys"),
                "{{instance}} {{server}} expired": rate("expired_keys"),
            },
            "Expired is as it should be. Evicted is what the cache is too small for.",
        ),
        Panel(
            "Clients",
            "short",
            {
                "{{instance}} {{server}} connected": f"{prefix}connected_clients",
                "{{instance}} {{server}} rejected a second": rate("rejected_connections"),
            },
            "A process has up to 50 connections; above maxclients new ones are rejected.",
        ),
        Panel(
            "Commands",
            "ops",
            {"{{instance}} {{server}}": rate("commands_processed")},
            "What all clients send together, the exporter too.",
        ),
        Panel(
            "Look-ups that hit",
            "percentunit",
            {
                "{{instance}} {{server}}": (
                    f"{rate('keyspace_hits')} / "
                    f"({rate('keyspace_hits')} + {rate('keyspace_misses')})"
                )
            },
            "The server's own count, of all programs: streams, EXISTS and TTL are in it. Compare "
            "it with the hit rate above before you believe it.",
            most=1,
        ),
        Panel(
            "Up",
            "short",
            {"{{instance}} {{server}}": f"{prefix}up"},
            "1: the server answered its exporter. No value: the exporter itself did not.",
            most=1,
        ),
    ]


def rows(server: str = "redis_exporter") -> dict[str, list[Panel]]:
    """Return the panels of each row.

    Args:
        server: Who tells of the server: "redis_exporter", or "cachelab" for what
            ``python -m cachelab metrics`` shows.

    Raises:
        ValueError: It is neither.
    """
    prefix = SERVERS[_check.choice("server", server, tuple(SERVERS))]
    return {"Caches": _caches(), "Writes behind": _writes(), "Redis": _server(prefix)}


def queries(window: str = "1m", server: str = "redis_exporter") -> list[tuple[str, str]]:
    """Return the panel and the PromQL of each query, as Grafana sends it.

    Args:
        window: What takes the place of Grafana's interval: four scrapes at least.
        server: As in `rows`.

    >>> queries()[-1]
    ('Up', 'redis_up')
    """
    panels = [panel for row in rows(server).values() for panel in row]
    return [
        (panel.title, query.replace(RATE, window).replace("$cache", ".*").replace("$writes", ".*"))
        for panel in panels
        for query in panel.queries.values()
    ]


def dashboard(server: str = "redis_exporter") -> "Dashboard":
    """Return the dashboard, a row each for caches, writes and the server.

    Args:
        server: As in `rows`.

    Raises:
        MissingExtra: grafana-foundation-sdk is not installed.
        ValueError: server is none of those.
    """
    need("cachelab.lab.watch.dashboard", "grafana")
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    made = (
        build.Dashboard("cachelab")
        .uid("cachelab")
        .tags(["cachelab", "redis"])
        .description("Caches, writes behind them, and their Redis.")
        .refresh("15s")
        .time("now-30m", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
    )
    for name in ("cache", "writes"):
        made = made.with_variable(_variable(name))
    numbers = count(1)
    for title, panels in rows(server).items():
        made = made.with_row(build.Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_built(panel).id(next(numbers)))
    return made.build()


def _source() -> "DataSourceRef":
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef("prometheus", "${datasource}")


def _variable(name: str) -> "QueryVariable":
    """Return a choice among the names that a label has."""
    from grafana_foundation_sdk.builders.dashboard import QueryVariable
    from grafana_foundation_sdk.models.dashboard import VariableRefresh

    series = {"cache": "cachelab_reads_total", "writes": "cachelab_writes_waiting"}[name]
    return (
        QueryVariable(name)
        .datasource(_source())
        .query(f"label_values({series}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _built(panel: Panel) -> "TimeSeries":
    from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
    from grafana_foundation_sdk.models.common import (
        LegendDisplayMode,
        LegendPlacement,
        TooltipDisplayMode,
    )

    made = (
        TimeSeries()
        .title(panel.title)
        .description(panel.reads)
        .datasource(_source())
        .unit(panel.unit)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .min(0)
        .height(HEIGHT)
        .span(WIDTH)
    )
    if panel.most is not None:
        made = made.max(panel.most)
    for ref, (legend, query) in zip("ABC", panel.queries.items(), strict=False):
        made = made.with_target(Dataquery().expr(query).legend_format(legend).ref_id(ref).range())
    return made


def as_json(server: str = "redis_exporter") -> str:
    """Return the dashboard as Grafana imports it.

    Args:
        server: As in `rows`.
    """
    made = dashboard(server)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return JSONEncoder(sort_keys=True, indent=2).encode(made)


if __name__ == "__main__":
    print(as_json())
