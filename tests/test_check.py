"""Argument checks: numbers of any type become Python's own, or one error that names the rule."""

import enum
import math
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from cachelab import _check

Sixty = enum.IntEnum("Sixty", {"SECONDS": 60})
INTEGERS = [60, np.int8(60), np.uint8(60), np.int32(60), np.uint64(60), Sixty.SECONDS]
REALS = [60.0, np.float16(60), np.float32(60), np.longdouble(60), Fraction(60), Decimal("60")]
NO_NUMBERS = [None, "60", b"60", True, np.True_, 60j, [60], np.array([60]), np.timedelta64(60, "m")]
TOO_LARGE = [10**400, Fraction(10**400), Decimal("1e400"), np.longdouble("1e4000"), 10**5000]
NOT_FINITE = [math.inf, -math.inf, math.nan, np.float32("nan"), Decimal("NaN"), Decimal("sNaN")]
named = {"ids": lambda value: type(value).__name__}


@pytest.mark.parametrize("value", INTEGERS, **named)
def test_a_whole_number_of_any_integer_type_becomes_an_int(value):
    assert type(_check.whole("count", value, least=0)) is int
    assert _check.whole("count", value, least=0) == 60


@pytest.mark.parametrize("value", INTEGERS + REALS, **named)
def test_a_number_of_any_real_type_becomes_a_float(value):
    assert type(_check.number("ttl", value, above=0)) is float
    assert _check.number("ttl", value, above=0) == 60.0


def test_a_number_that_kept_its_type_would_overflow():
    with np.errstate(over="ignore"):
        assert np.int32(2_592_000) * np.int32(1000) < 0  # control: thirty days, in milliseconds
    assert _check.milliseconds("ttl", np.int32(2_592_000)) == 2_592_000_000
    assert _check.milliseconds("ttl", np.uint8(60)) == 60_000


@pytest.mark.parametrize("value", NO_NUMBERS, **named)
def test_what_is_no_number_is_a_type_error_that_names_the_argument(value):
    with pytest.raises(TypeError, match="^ttl must be a number, not "):
        _check.number("ttl", value)
    with pytest.raises(TypeError, match="^count must be a whole number, not "):
        _check.whole("count", value, least=0)


@pytest.mark.parametrize("value", REALS, **named)
def test_a_whole_number_is_no_fraction_by_its_type(value):
    with pytest.raises(TypeError, match="^count must be a whole number, not "):
        _check.whole("count", value, least=0)


@pytest.mark.parametrize("value", TOO_LARGE + NOT_FINITE, **named)
def test_what_no_float_can_hold_is_refused_by_argument_value_and_rule(value):
    with pytest.raises(ValueError, match=r"^ttl must be a finite number, 1\.8e\+308 at most, not "):
        _check.number("ttl", value, above=0)


def test_without_the_check_what_no_float_can_hold_fails_without_a_name():
    with pytest.raises(OverflowError) as caught:
        float(10**400)
    assert "ttl" not in str(caught.value)


@pytest.mark.parametrize("value", [10**400, 10**5000, sys.maxsize + 1], **named)
def test_a_whole_number_has_a_greatest_one_unless_told_otherwise(value):
    with pytest.raises(ValueError, match=f"^count must be at most {sys.maxsize}, not "):
        _check.whole("count", value, least=0)
    assert _check.whole("seed", 10**400, least=0, most=10**401) == 10**400


def test_a_number_that_python_refuses_to_write_is_told_in_words():
    with pytest.raises(ValueError, match="Exceeds the limit"):
        repr(10**5000)  # control
    with pytest.raises(ValueError, match="too many digits to show"):
        _check.whole("count", 10**5000, least=0)


@pytest.mark.parametrize(
    ("bounds", "value", "rule"),
    [
        ({"above": 0}, Fraction(0), "greater than 0"),
        ({"above": 0, "high": 5}, 6, "greater than 0 and at most 5"),
        ({}, -1, "at least 0"),
        ({"high": 1}, 1.5, "at least 0 and at most 1"),
        ({"low": 0.5, "high": 1e6}, 2e6, "at least 0.5 and at most 1000000"),
    ],
)
def test_bounds_are_told_as_they_are(bounds, value, rule):
    with pytest.raises(ValueError) as caught:
        _check.number("share", value, **bounds)
    assert str(caught.value) == f"share must be {rule}, not {value!r}"


def test_the_bounds_themselves_lie_within_except_the_one_to_be_above():
    assert _check.number("share", 1, high=1) == 1.0
    assert _check.number("share", 0) == 0.0
    assert _check.wait("latency", _check.LONGEST_WAIT) == _check.LONGEST_WAIT


@pytest.mark.parametrize("seconds", [1e300, sys.float_info.max, 2**62])
def test_a_long_time_to_live_is_the_longest_that_redis_keeps(client, seconds):
    client.set("long", "x", px=_check.milliseconds("ttl", seconds))
    assert client.pttl("long") > 2**61
    with pytest.raises(Exception, match="invalid expire|out of range"):
        client.set("control", "x", px=int(seconds) * 1000)


def test_a_short_time_to_live_is_a_millisecond_at_least():
    assert _check.milliseconds("ttl", 1e-300) == 1


def test_a_long_value_is_cut_in_the_error():
    with pytest.raises(TypeError) as caught:
        _check.number("ttl", "x" * 10_000)
    assert len(str(caught.value)) < 120
