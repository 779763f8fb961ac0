"""A file read where the system has no copy of it in memory: what the disk itself takes."""

import os
import sys
import tempfile
from pathlib import Path
from random import Random
from time import perf_counter

import numpy as np

from cachelab._check import whole

PAGE = 4096  # bytes that one read asks for
PAGES = 4096  # of the file: 16 MB, so that a page rarely comes twice


def cold_and_warm(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of ``n`` reads of 4 KB at random places of a file, cold, then warm.

    Cold: written to the disk, then dropped from the page cache (Linux), or never let into it
    (macOS), and read without read-ahead. Warm: the same places again, from memory. The file lies
    in /var/tmp, since /tmp may be kept in memory, and is gone when this returns. A virtual
    machine's disk may have a cache of its own, which nothing here empties.
    """
    n = whole("n", n, least=1)
    with tempfile.TemporaryFile(dir="/var/tmp" if Path("/var/tmp").is_dir() else None) as file:
        fd, places = file.fileno(), [PAGE * page for page in Random(0).choices(range(PAGES), k=n)]
        _in_memory(fd, False)
        file.write(os.urandom(PAGE * PAGES))
        file.flush()
        os.fsync(fd)
        _in_memory(fd, False)
        cold = _reads(fd, places)
        _in_memory(fd, True)
        _reads(fd, places)
        return cold, _reads(fd, places)


def _in_memory(fd: int, kept: bool) -> None:
    """Let the system keep a file's pages in memory, or drop them and read what is asked for."""
    if sys.platform != "darwin":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL if kept else os.POSIX_FADV_RANDOM)
        if not kept:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        import fcntl

        fcntl.fcntl(fd, fcntl.F_NOCACHE, int(not kept))


def _reads(fd: int, places: list[int]) -> np.ndarray:
    marks = np.empty((len(places), 2))
    for i, place in enumerate(places):
        began = perf_counter()
        os.pread(fd, PAGE, place)
        marks[i] = began, perf_counter()
    return marks[:, 1] - marks[:, 0]
