"""Writes that reach the database later: none lost, none twice, each row in its order."""

import time

from cachelab.lab.contract.failpoints import REFUSED
from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import Blocking, NotApplicable, expect, same
from cachelab.lab.contract.workers import CLAIM_AFTER, POISON, BehindBench

FULL = 20  # messages that may wait where a stream is filled
AT_ONCE = 3  # puts between two kills
TRIES = 5  # of a message that fails
TEXTS = ["", "0", "null", "None", '"', "{}", "a\r\nb", "\u2603"]
IDS = ["a b", "a\nb", "a\r\nXADD", "*", "{a}", "a:b", "e\u0301", "A", "a", "x" * 512]


@promise("what put has acknowledged is in the rows when a worker has worked", "write-behind")
def puts_are_applied(trial: BehindBench) -> None:
    cache = trial.make_behind()
    wanted = trial.put(cache, {f"u{n}": f"value {n}" for n in range(100)})
    trial.settle(wanted)


@promise("texts arrive exactly, whatever is in them or in the id", "write-behind")
def texts_arrive_exactly(trial: BehindBench) -> None:
    cache = trial.make_behind()
    wanted = trial.put(cache, {id: f"value of {id}" for id in IDS})
    for number, text in enumerate(TEXTS):
        cache.put(f"text {number}", text)
        wanted[f"text {number}"] = text
    trial.settle(wanted)


@promise("the last put of a row wins, a delete too, in one batch or in several", "write-behind")
def batches_keep_order(trial: BehindBench) -> None:
    cache = trial.make_behind()
    histories = {
        "put": ["1", "2", "3"],
        "gone": ["4", None],
        "again": ["5", None, "6"],
        "twice gone": [None, "7", None],
        "first gone": [None, "8"],
    }
    for number in range(3):
        for id, values in histories.items():
            for value in values[number : number + 1]:
                cache.put(id, value)
    trial.settle({id: values[-1] for id, values in histories.items()})


@promise("the put that came last wins, whatever the clock of its process says", "write-behind")
def clocks_may_differ(trial: BehindBench) -> None:
    for hours in (2, -2):
        for id in ("ada", "bob"):
            trial.put_elsewhere(id, f"{hours} hours off", hours)
    cache = trial.make_behind()
    trial.settle(trial.put(cache, {"ada": "new"}) | {"bob": "-2 hours off"})


@promise("a worker that is killed before or after COMMIT or XACK loses nothing", "write-behind")
def killed_workers_lose_nothing(trial: BehindBench) -> None:
    wanted = _with_kills(trial)
    with trial.worker():
        trial.wait_for(wanted)


@promise("a worker that is killed there has no put applied twice", "write-behind")
def killed_workers_apply_once(trial: BehindBench) -> None:
    _with_kills(trial)
    with trial.worker():
        trial.work_through()
    _see_no_value_twice(trial)


def _with_kills(trial: BehindBench) -> dict[str, str | None]:
    """Have a worker killed at each point, amid puts; return what was put."""
    cache = trial.make_behind()
    wanted: dict[str, str | None] = {}
    for point in ("commit", "committed", "ack", "acked"):
        with trial.worker((point, "SIGKILL")) as worker:
            wanted |= trial.put(cache, {f"{point} {n}": f"{point} {n}" for n in range(AT_ONCE)})
            worker.ended()
    return wanted


@promise("messages that are claimed when later ones have been applied are applied", "write-behind")
def late_claims_are_applied(trial: BehindBench) -> None:
    cache = trial.make_behind()
    with trial.worker(("begin", "SIGKILL")) as first:
        wanted = trial.put(cache, {f"first {n}": f"first {n}" for n in range(AT_ONCE)})
        first.ended()
    wanted |= trial.put(cache, {f"later {n}": f"later {n}" for n in range(AT_ONCE)})
    with trial.worker(claim_after=4 * CLAIM_AFTER):  # it has time for what is new before it claims
        trial.wait_for(wanted)


@promise("two workers that hold one message apply it once", "write-behind")
def two_workers_apply_once(trial: BehindBench) -> None:
    cache = trial.make_behind()
    with trial.worker(("begin", "SIGSTOP")) as first:
        wanted = trial.put(cache, {f"u{n}": f"value {n}" for n in range(AT_ONCE)})
        first.stopped()
        with trial.worker():
            trial.wait_for(wanted)
        first.resume()
        first.worked()
    trial.settle(wanted)


@promise("a worker that was stopped for a while brings no older put back", "write-behind")
def stopped_workers_bring_nothing_back(trial: BehindBench) -> None:
    cache = trial.make_behind()
    with trial.worker(("begin", "SIGSTOP")) as first:
        trial.put(cache, dict.fromkeys(("ada", "bob"), "old"))
        trial.put(cache, {"eve": None})
        first.stopped()
        wanted = trial.put(cache, {"ada": "new", "eve": "new"}) | trial.put(cache, {"bob": None})
        with trial.worker(claim_after=60):  # what the other holds is not claimed: it comes late
            trial.until(lambda: "eve" in trial.ledger.rows(), lambda: "a new put is not applied")
        first.resume()
        first.worked()
    with trial.worker():
        trial.wait_for(wanted)


@promise("a put that the database refuses keeps no other from being applied", "write-behind")
def refused_puts_stop_nobody(trial: BehindBench) -> None:
    cache = trial.make_behind()
    wanted = trial.put(cache, {"before": "1", "same": "2"})
    cache.put("same", POISON), cache.put("bad", POISON)
    wanted |= trial.put(cache, {"after": "3", "same": "4"})
    with trial.worker():
        trial.until(lambda: trial.ledger.rows() == wanted, lambda: "others are not applied")


@promise(
    "a put that the database refuses is set aside with its error after some tries", "write-behind"
)
def refused_puts_are_set_aside(trial: BehindBench) -> None:
    cache = trial.make_behind()
    cache.put("bad", POISON)
    with trial.worker():
        trial.work_through()
        tries = trial.ledger.refusals()
        expect(tries > 1, f"it is tried {tries} times, though what fails once may go well later")
        expect(tries <= 4 * TRIES, f"it is tried {tries} times")
        for text in (POISON, REFUSED):
            expect(trial.set_aside(text), f"nothing that is set aside in Redis tells of {text!r}")


@promise("while the database is locked nothing is set aside or lost", "write-behind")
def locked_databases_lose_nothing(trial: BehindBench) -> None:
    cache = trial.make_behind()
    with trial.worker():
        with trial.ledger.locked():
            wanted = trial.put(cache, {f"u{n}": f"value {n}" for n in range(AT_ONCE)})
            time.sleep((TRIES + 3) * CLAIM_AFTER)  # for more tries than a message has
        trial.wait_for(wanted)


@promise("where as many messages wait as may, put raises and nothing is dropped", "write-behind")
def full_streams_refuse(trial: BehindBench) -> None:
    cache = trial.make_behind(max_length=FULL)
    wanted: dict[str, str | None] = {}
    for number in range(2 * FULL):
        try:
            wanted |= trial.put(cache, {f"u{number}": f"value {number}"})
        except TimeoutError:
            raise
        except Exception:
            break
    expect(len(wanted) <= FULL, f"{len(wanted)} puts were acknowledged where {FULL} may wait")
    expect(len(wanted) >= FULL / 2, f"{len(wanted)} puts were acknowledged where {FULL} may wait")
    trial.settle(wanted)
    with trial.worker():
        trial.until(
            lambda: _there_is_room(trial, cache), lambda: "put raises still, and nothing waits"
        )


def _there_is_room(trial: BehindBench, cache: Blocking) -> bool:
    try:
        trial.put(cache, {"later": "there is room again"})
    except TimeoutError:
        raise
    except Exception:
        return False
    return True


@promise("a put that Redis did not take raises", "write-behind")
def lost_puts_are_said(trial: BehindBench) -> None:
    cache = trial.make_behind()
    trial.put(cache, {"ada": "Ada"})
    trial.place.kill()
    error = trial.start(cache.put, "bob", "Bob").exception(trial.patience)
    expect(isinstance(error, Exception), "put returned as if Redis had taken it")


@promise("a message is kept until each group has read it, and not much longer", "write-behind")
def messages_are_kept_for_each_group(trial: BehindBench) -> None:
    cache = trial.make_behind()
    trial.settle(trial.put(cache, {"first": "0"}))
    streams = trial.streams()
    if not streams:
        raise NotApplicable("a write-behind without a stream")
    for stream in streams:
        trial.client.xgroup_create(stream, "contract", "$")
    wanted = trial.put(cache, {f"u{n}": f"value {n}" for n in range(FULL)})
    trial.settle(wanted)
    read = [
        (stream, message)
        for stream in streams
        for _, messages in trial.client.xreadgroup("contract", "me", {stream: ">"}) or []
        for message, fields in messages
    ]
    same(len(read), len(wanted), "messages that another group still finds")
    for stream, message in read:
        trial.client.xack(stream, "contract", message)
    trial.settle(trial.put(cache, {"last": "1"}))
    kept = sum(map(trial.client.xlen, streams))
    expect(kept < FULL, f"{kept} messages are kept that every group has read and acknowledged")


@promise("a get gives the last acknowledged put, applied or not", "write-behind")
def own_writes_are_read(trial: BehindBench) -> None:
    cache = trial.reading()
    same(cache.get("ada"), None, "a read of a row that is not there")
    old = trial.put(cache, {"ada": "old", "bob": "old"})
    trial.settle(old)
    same({id: cache.get(id) for id in old}, old, "reads of what was applied")
    new = trial.put(cache, {"ada": "new", "bob": None})
    same({id: cache.get(id) for id in new}, new, "reads of what waits")
    trial.settle(new)
    same({id: cache.get(id) for id in new}, new, "reads of what was applied")


@promise("while a put waits, no get goes back to the one before", "write-behind")
def older_puts_do_not_come_back(trial: BehindBench) -> None:
    cache = trial.reading()
    with trial.worker(("committed", "SIGSTOP"), ("begin", "SIGKILL")) as worker:
        trial.put(cache, {"ada": "old"})
        worker.stopped()  # the message is applied, and not acknowledged
        wanted = trial.put(cache, {"ada": "new"})
        worker.resume()
        worker.ended()  # when it comes to apply the next
        seen = cache.get("ada")
        same(seen, wanted["ada"], "a read of what waits, when the put before was acknowledged")
    trial.settle(wanted)
    same(cache.get("ada"), wanted["ada"], "a read of what was applied")


@promise("other processes read what was applied, whatever they have cached", "write-behind")
def applied_puts_are_seen(trial: BehindBench) -> None:
    cache, other = trial.reading(), trial.reading()
    for value in ("old", "new"):
        wanted = trial.put(cache, {"ada": value})
        trial.settle(wanted)
        seen = [each.get("ada") for each in (cache, other, trial.reading())]
        same(seen, [wanted["ada"]] * 3, f"reads by three processes of the {value} value")


def _see_no_value_twice(trial: BehindBench) -> None:
    twice = trial.ledger.twice()
    expect(not twice, f"{len(twice)} values were written twice, such as {(twice or [''])[0]!r}")
