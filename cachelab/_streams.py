"""Standard streams as a command finds them: closed, redirected, or a pipe whose reader leaves."""

import io
import os
import sys
from collections.abc import Callable

PIPE_CLOSED = 141  # what a shell reports of a program that SIGPIPE has ended


def run_command(program: str, run: Callable[[], int]) -> int:
    """Run a command and return its exit status, whatever its streams are.

    Args:
        program: What a line about an error begins with.
        run: The command, which prints and returns its exit status.

    Returns:
        What ``run`` returned; 141 when the reader of its output has left, 2 when the system
        refuses something, such as a place to write to: that is told in one line.
    """
    _open_streams()
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who read along has left, as head does
        return _left(PIPE_CLOSED)
    except OSError as error:
        return _left(tell(program, error))


def tell(program: str, error: Exception) -> int:
    """Tell an error in one line; return the exit status that goes with it."""
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _open_streams() -> None:
    """Make standard streams usable whatever the caller made of them.

    One that was closed is None, and its number would go to the next file that is opened: a
    database that gets what is printed. Each line is seen at once by who reads along, and a letter
    that the encoding has not does not end a command.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def _left(status: int) -> int:
    """Let nothing be written any more where writing has failed, at exit neither."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return status
