"""What all workers of the demo know of each other: its switches, and what the last minute cost.

It lies in the database, for Redis may be dead: a row for the switches, one for each worker. What a
worker is told by another it hears within `EVERY` seconds.
"""

import json
import os
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from statistics import quantiles
from time import time
from typing import Any

from cachelab.apps.web.costs import Cost
from cachelab.apps.web.origin import opened, tables

EVERY = 0.25  # seconds
MINUTE = 60  # seconds that the charts show
SAMPLE = 40  # times that a worker tells of a second: as many quantiles where there were more


@dataclass(frozen=True)
class Switches:
    """How the demo is set.

    Attributes:
        cache: Whether pages read the cache, or the database at once.
        slow: Whether the database is slow.
        redis: Whether the server that the demo started is to run.
        redis_since: When that was said, for it may have died meanwhile.
        visitors: Which worker simulates visitors; "" for none.
        changes: How often it was set, so that nobody goes back to what was read before.
    """

    cache: bool = True
    slow: bool = False
    redis: bool = True
    redis_since: float = 0.0
    visitors: str = ""
    changes: int = 0


class Board:
    """The rows that all workers see; it blocks.

    Args:
        url: As `UserDatabase.url` gives it.
    """

    def __init__(self, url: str):
        self._engine = opened(url)
        self._table = tables().tables["cachelab_demo_board"]

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def reset(self) -> None:
        """Forget what an earlier demo has left: all switches are as they are at first."""
        with self._engine.begin() as connection:
            changes = self._read(connection).changes + 1
            connection.execute(self._table.delete())
            self._put(connection, "switches", asdict(Switches(changes=changes)))

    def switches(self) -> Switches:
        """Return how the demo is set now."""
        with self._engine.connect() as connection:
            return self._read(connection)

    def switch(self, **changes: Any) -> Switches:
        """Change some switches, the others stay; return how the demo is set then."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":  # so that nobody writes after we have read
                connection.exec_driver_sql("UPDATE cachelab_demo_board SET name = name")
            before = self._read(connection, lock=True)
            switches = replace(before, changes=before.changes + 1, **changes)
            self._put(connection, "switches", asdict(switches))
        return switches

    def tell(self, seconds: list[dict[str, Any]]) -> None:
        """Tell what this worker's last minute cost."""
        with self._engine.begin() as connection:
            self._put(connection, f"seconds:{os.getpid()}", seconds)

    def told(self) -> list[list[dict[str, Any]]]:
        """Return what each worker's last minute cost."""
        from sqlalchemy import select

        asked = select(self._table.c.value).where(self._table.c.name.startswith("seconds:"))
        with self._engine.connect() as connection:
            return [json.loads(value) for (value,) in connection.execute(asked)]

    def _read(self, connection: Any, lock: bool = False) -> Switches:
        from sqlalchemy import select

        asked = select(self._table.c.value).where(self._table.c.name == "switches")
        text = connection.execute(asked.with_for_update() if lock else asked).scalar()
        return Switches(**json.loads(text or "{}"))

    def _put(self, connection: Any, name: str, value: Any) -> None:
        text = json.dumps(value)
        update = self._table.update().where(self._table.c.name == name).values(value=text)
        if not connection.execute(update).rowcount:
            connection.execute(self._table.insert().values(name=name, value=text))


@dataclass
class Second:
    """What one second cost in one worker."""

    at: int
    requests: int = 0
    hits: int = 0
    loads: int = 0
    errors: int = 0
    ms: list[float] = field(default_factory=list)


class Minute:
    """What the last minute cost in this worker."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque(maxlen=MINUTE)

    def add(self, cost: Cost, status: int) -> None:
        """Count a response."""
        now = int(time())
        if not self._seconds or self._seconds[-1].at != now:
            self._seconds.append(Second(now))
        second = self._seconds[-1]
        second.requests += 1
        second.hits += cost.outcome == "hit"
        second.loads += cost.loads
        second.errors += status >= 500
        second.ms.append(cost.ms)

    def rows(self) -> list[dict[str, Any]]:
        """Return its seconds, each with a sample of its times."""
        return [asdict(second) | {"ms": _sample(second.ms)} for second in self._seconds]


def merged(told: list[list[dict[str, Any]]], now: int) -> list[dict[str, Any]]:
    """Return the last minute of all workers: for each second its counts, its p50 and p95 in ms.

    The second that runs is left out; one in which nothing was asked for has no times.
    """
    found = []
    for at in range(now - MINUTE, now):
        rows = [row for worker in told for row in worker if row["at"] == at]
        ms = sorted(one for row in rows for one in row["ms"])
        counts = {
            name: sum(row[name] for row in rows) for name in ("requests", "hits", "loads", "errors")
        }
        p50, p95 = (_quantile(ms, share) for share in (0.5, 0.95))
        found.append({"at": at, **counts, "p50": p50, "p95": p95})
    return found


def _quantile(ms: list[float], share: float) -> float | None:
    return round(ms[min(len(ms) - 1, int(share * len(ms)))], 2) if ms else None


def _sample(ms: list[float]) -> list[float]:
    few = ms if len(ms) <= SAMPLE else quantiles(ms, n=SAMPLE + 1, method="inclusive")
    return [round(one, 2) for one in few]
