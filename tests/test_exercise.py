"""Exercises: a report in plain lines that never stops the notebook."""

import asyncio
import signal
import sys
import threading
import time

import nbformat
import pytest
from conftest import at_best
from nbformat.v4 import new_code_cell, new_notebook

from cachelab.lab import exercise
from cachelab.lab.exercise import check, check_async, guessed
from cachelab.lab.notebooks import execute


@pytest.fixture(autouse=True)
def nothing_was_tried(monkeypatch):
    monkeypatch.setattr(exercise, "_failed", exercise.Counter())


def broken():
    return 1 / 0


async def later():
    return True


async def late_failure():
    raise KeyError("user-1")


def test_all_that_holds_is_said_to_hold(capsys):
    assert (
        check(
            "falsy values", {"an empty text is a hit": lambda: True, "zero is a hit": lambda: [0]}
        )
        is None
    )
    assert capsys.readouterr().out.splitlines() == [
        "held     an empty text is a hit",
        "held     zero is a hit",
        "All 2 held: falsy values",
    ]


def test_where_to_look_is_said_from_the_second_try_on(capsys):
    last = []
    for _ in range(3):
        check("falsy", {"one": lambda: True, "two": lambda: None}, look="the line with `if`")
        *lines, end = capsys.readouterr().out.splitlines()
        assert lines == ["held     one", "not yet  two"]
        last.append(end)
    hint = "1 of 2 held. Look at: the line with `if`"
    assert last == ["1 of 2 held. A second try shows where to look.", hint, hint]


def test_after_all_has_held_or_in_another_exercise_a_try_is_the_first_again(capsys):
    for name, holds in (("one", False), ("one", True), ("one", False), ("two", False)):
        check(name, {"it holds": lambda holds=holds: holds}, look="there")
    told = capsys.readouterr().out
    assert "Look at" not in told and told.count("A second try") == 3


def test_an_exception_is_not_yet_and_is_shown_in_one_line(capsys):
    def two_lines():
        raise ValueError("first\n  second " + "x" * 500)

    check(
        "errors",
        {
            "no": broken,
            "long": two_lines,
            "bare": lambda: (_ for _ in ()).throw(NotImplementedError),
        },
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "not yet  no (ZeroDivisionError: division by zero)"
    assert (
        lines[1].startswith("not yet  long (ValueError: first second xxx") and len(lines[1]) < 150
    )
    assert lines[2] == "not yet  bare (NotImplementedError)"


def test_what_an_assertion_says_is_what_was_seen(capsys):
    def sees():
        raise AssertionError("3 loads\nof one id")

    def bare():
        raise AssertionError

    check("loads", {"one load": sees, "bare": bare})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["not yet  one load (3 loads; of one id)", "not yet  bare (AssertionError)"]


def test_async_sentences_are_awaited_beside_sync_ones(capsys):
    asyncio.run(
        check_async("async", {"awaited": later, "plain": lambda: True, "fails": late_failure})
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "held     awaited",
        "held     plain",
        "not yet  fails (KeyError: 'user-1')",
    ]


def test_an_async_sentence_in_a_sync_check_is_not_taken_for_held(capsys):
    check("async", {"awaited": later})
    assert (
        "not yet  awaited (an async callable: await check_async(...) instead)"
        in capsys.readouterr().out
    )


def test_a_callable_that_fails_to_be_true_or_false_is_not_yet(capsys):
    import numpy as np

    check("arrays", {"ambiguous": lambda: np.array([1, 2])})
    assert capsys.readouterr().out.startswith("not yet  ambiguous (ValueError")


# What does not end


def spins():
    while True:
        pass


def swallows():
    while True:
        try:
            try:
                time.sleep(60)
            finally:
                time.sleep(0)
        except:  # noqa: E722
            pass


def says_yes_too_late():
    try:
        time.sleep(60)
    except BaseException:
        return True


ENDLESS = {
    "a loop": spins,
    "a loop that swallows what it can": swallows,
    "a lock": threading.Event().wait,
    "a call": lambda: time.sleep(60),
    "an answer that comes too late": says_yes_too_late,
}


async def waits():
    await asyncio.Event().wait()


async def holds_up_the_loop():
    swallows()


async def swallows_cancellations():
    while True:
        try:
            await asyncio.sleep(60)
        except:  # noqa: E722
            pass


async def turns():
    while await asyncio.sleep(0, True):
        pass


async def begins_tasks():
    await asyncio.gather(holds_up_the_loop(), waits())


ENDLESS_ASYNC = [waits, holds_up_the_loop, swallows_cancellations, turns, begins_tasks, spins]


@pytest.mark.parametrize("call", ENDLESS.values(), ids=ENDLESS)
def test_what_does_not_end_is_not_yet_and_the_next_sentence_is_tried(capsys, call):
    check("ends", {"it ends": call, "the next": lambda: True}, limit=0.2)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "not yet  it ends (no end after 0.2 s)",
        "held     the next",
    ]


@pytest.mark.parametrize("call", ENDLESS_ASYNC)
def test_what_is_awaited_and_does_not_end_is_not_yet_and_the_loop_goes_on(capsys, call):
    async def tried():
        await check_async("ends", {"it ends": call, "the next": later}, limit=0.2)
        return asyncio.all_tasks() - {asyncio.current_task()}

    left = asyncio.run(tried())
    assert capsys.readouterr().out.splitlines()[:2] == [
        "not yet  it ends (no end after 0.2 s)",
        "held     the next",
    ]
    assert not [task for task in left if "_outcome" in repr(task)]


def test_what_ends_in_time_is_held_though_all_together_take_longer(capsys):
    def all_held() -> bool:
        check("slow", dict.fromkeys("abc", lambda: time.sleep(0.2) or True), limit=0.5)
        return "All 3 held" in capsys.readouterr().out

    assert at_best(all_held)


def test_the_signal_the_timer_and_the_tracer_are_given_back(capsys):
    rings = []
    was = signal.signal(signal.SIGALRM, lambda *_: rings.append(1))
    mine, tracer = signal.getsignal(signal.SIGALRM), sys.gettrace()
    signal.setitimer(signal.ITIMER_REAL, 60, 7)
    try:
        check("ends", {"it ends": swallows}, limit=0.1)
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert signal.getsignal(signal.SIGALRM) is mine and sys.gettrace() is tracer
        assert 30 < left < 59.95 and interval == 7 and not rings
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)


def test_a_timer_that_ran_out_meanwhile_rings_afterwards(capsys):
    rang = threading.Event()
    was = signal.signal(signal.SIGALRM, lambda *_: rang.set())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        check("ends", {"it ends": lambda: time.sleep(60)}, limit=0.2)
        assert rang.wait(10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)


def test_beside_the_main_thread_a_check_works_without_a_limit(capsys):
    thread = threading.Thread(target=check, args=("one", {"one": lambda: True}))
    thread.start()
    thread.join()
    assert "All 1 held" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_answer_and_passes_on(error):
    def interrupted():
        raise error

    async def interrupted_while_awaited():
        raise error

    with pytest.raises(error):
        check("passes", {"one": interrupted})
    with pytest.raises(error):
        asyncio.run(check_async("passes", {"one": interrupted_while_awaited}))


def test_a_cancellation_from_outside_passes_on_and_ends_what_was_tried():
    async def cancelled():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await check_async("passes", {"one": waits})
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(cancelled()) == 1


def test_a_cancellation_that_is_the_answer_is_not_yet(capsys):
    async def cancels():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    asyncio.run(check_async("cancelled", {"one": cancels}))
    assert "not yet  one (CancelledError)" in capsys.readouterr().out


def test_a_kernel_goes_on_after_code_that_held_up_its_loop(tmp_path):
    spins = (
        "async def spins():\n    while True:\n        try: time.sleep(60)\n        except: pass\n"
    )
    begins = "async def begins():\n    await asyncio.gather(spins(), spins())\n"
    tried = "await check_async('ends', {'one': spins, 'two': begins}, limit=0.2)"
    setup = "import asyncio, time\nfrom cachelab.lab.exercise import check_async\n"
    cells = [f"{setup}{spins}{begins}{tried}", "await asyncio.sleep(0.2, 'goes on')"]
    nb = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    nbformat.write(nb, tmp_path / "00_small.ipynb")
    first, second = (cell.outputs for cell in execute(tmp_path / "00_small.ipynb").cells)
    assert [out.name for out in first] == ["stdout"]
    assert first[0].text.count("(no end after 0.2 s)") == 2
    assert second[0].data["text/plain"] == "'goes on'"


# Guesses


@pytest.mark.parametrize("nothing", [None, (None, None), [None], {"a": None, "b": None}])
def test_a_guess_that_nobody_made_is_told_as_none(nothing):
    assert guessed(nothing) == guessed(nothing, "ms") == "You did not guess"


GUESSES = {
    "You guessed 5 ms": 5,
    "You guessed 0 ms": 0,
    "You guessed 12,000 ms": 12000,
    "You guessed 0.5 ms": 0.5,
    "You guessed Redis": "Redis",
    "You guessed yes": True,
    "You guessed 1 ms and nothing": (1, None),
    "You guessed 1 ms for mean, nothing for p95": {"mean": 1, "p95": None},
}


@pytest.mark.parametrize(("told", "guess"), GUESSES.items(), ids=GUESSES)
def test_a_guess_is_told_in_words_with_the_unit_of_its_numbers(told, guess):
    assert guessed(guess, "ms") == told
