"""Exercises: a report in plain lines that never stops the notebook."""

import asyncio

from cachelab.lab.exercise import check, check_async


def broken():
    return 1 / 0


async def later():
    return True


async def late_failure():
    raise KeyError("user-1")


def test_all_that_holds_is_said_to_hold(capsys):
    assert check("falsy values", {"an empty text is a hit": lambda: True, "zero is a hit": lambda: [0]}) is None
    assert capsys.readouterr().out.splitlines() == [
        "held     an empty text is a hit",
        "held     zero is a hit",
        "All 2 held: falsy values",
    ]


def test_what_does_not_hold_yet_points_to_where_to_look(capsys):
    check("falsy values", {"one": lambda: True, "two": lambda: None}, look="the line with `if`")
    assert capsys.readouterr().out.splitlines() == [
        "held     one",
        "not yet  two",
        "1 of 2 held. Look at: the line with `if`",
    ]


def test_an_exception_is_not_yet_and_is_shown_in_one_line(capsys):
    def two_lines():
        raise ValueError("first\n  second " + "x" * 500)

    check("errors", {"no": broken, "long": two_lines, "bare": lambda: (_ for _ in ()).throw(NotImplementedError)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "not yet  no (ZeroDivisionError: division by zero)"
    assert lines[1].startswith("not yet  long (ValueError: first second xxx") and len(lines[1]) < 150
    assert lines[2:] == ["not yet  bare (NotImplementedError)", "0 of 3 held. Look at: errors"]


def test_async_sentences_are_awaited_beside_sync_ones(capsys):
    asyncio.run(check_async("async", {"awaited": later, "plain": lambda: True, "fails": late_failure}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["held     awaited", "held     plain", "not yet  fails (KeyError: 'user-1')"]


def test_an_async_sentence_in_a_sync_check_is_not_taken_for_held(capsys):
    check("async", {"awaited": later})
    assert "not yet  awaited (an async callable: await check_async(...) instead)" in capsys.readouterr().out


def test_a_callable_that_fails_to_be_true_or_false_is_not_yet(capsys):
    import numpy as np

    check("arrays", {"ambiguous": lambda: np.array([1, 2])})
    assert capsys.readouterr().out.startswith("not yet  ambiguous (ValueError")
