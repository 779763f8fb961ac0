"""Cold reads come from the disk; the same reads again do not."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cachelab.lab import disk


def kept_in_memory(folder: str) -> bool:
    """Whether a folder lies on a file system that has no disk (Linux)."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return (
        max(
            (mount for mount in mounts if folder.startswith(mount[1])),
            key=lambda mount: len(mount[1]),
        )[2]
        == "tmpfs"
    )


def test_both_answers_hold_a_duration_for_each_read():
    cold, warm = disk.cold_and_warm(20)
    assert len(cold) == len(warm) == 20 and (cold > 0).all() and (warm > 0).all()


@pytest.mark.skipif(
    sys.platform != "linux" or kept_in_memory("/var/tmp"), reason="there is no disk to be seen"
)
def test_a_cold_read_takes_much_longer_than_the_same_read_from_memory():
    cold, warm = disk.cold_and_warm(200)
    assert np.median(cold) > 3 * np.median(warm)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_a_bad_count_is_refused(n):
    with pytest.raises((ValueError, TypeError), match="n must be"):
        disk.cold_and_warm(n)
