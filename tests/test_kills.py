"""Workers that are killed: what each form loses or doubles, and that the package's own does not."""

import time

import pytest

from cachelab.errors import CachelabError
from cachelab.lab import kills

EACH = 40  # writes that a worker finds; a list's takes 50 where it finds more
FATES = {
    "a list, popped": (90, 0),
    "acknowledged first": (80, 0),
    "not idempotent": (0, 80),
    "last id": (40, 0),
    "MAXLEN": (40, 0),
    "WriteBehind": (0, 0),
}


def until(call, patience=30.0):
    """Return the first true result of a call."""
    deadline = time.monotonic() + patience
    while not (result := call()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return result


@pytest.mark.parametrize("form", kills.FORMS)
def test_of_workers_killed_at_each_point_a_form_loses_and_doubles_what_it_must(form):
    fate = kills.killed(form, kills=len(kills.POINTS), each=EACH)
    assert fate == kills.Fate(form, 4, 4 * EACH, *FATES[form])


def test_a_worker_that_ends_otherwise_is_told(monkeypatch):
    monkeypatch.setattr(kills.Listed, "work", lambda *_: 1 / 0)
    with pytest.raises(CachelabError, match="status 1, not -9: a list, popped"):
        kills.killed("a list, popped", kills=1, each=1)


@pytest.mark.parametrize(
    "arguments", [{"form": "by luck"}, {"kills": -1}, {"each": 0}, {"each": kills.BATCH + 1}]
)
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        kills.killed(**{"form": "WriteBehind"} | arguments)


def in_hand(writers):
    """Return how many writes the worker holds and Redis does not."""
    now = writers.recent().iloc[-1]
    return now["acknowledged"] - now["applied"] - now["in Redis"]


@pytest.fixture
def writing():
    """A function that starts a writer whose worker never gets beyond its first commit."""
    made = []

    def start(form):
        made.append(kills.Writers(form, pause=600.0))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_what_a_worker_had_popped_is_lost_with_it_and_nothing_else(writing):
    writers = writing("a list, popped")
    held = until(lambda: in_hand(writers))
    assert writers.works and writers.lost == 0
    writers.kill_worker()
    assert writers.lost == held and not writers.works
    writers.kill_worker()
    assert writers.lost == held and until(lambda: in_hand(writers) == held)


def test_what_the_worker_of_a_write_behind_had_read_is_still_in_the_stream(writing):
    writers = writing("WriteBehind")
    client = kills.connect(writers.server.url)
    until(lambda: client.xpending(kills.STREAM, kills.GROUP)["pending"])
    assert in_hand(writers) == 0
    writers.kill_worker()
    assert writers.lost == 0 and not writers.works
