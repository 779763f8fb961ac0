"""Keep watch over one program: a small process, started by ``cachelab.server.process`` as a script.

It is the program's parent and reads orders from a pipe that the owner holds. End of file means
that the owner is gone, whatever ended it (SIGKILL included): the program is killed, its directory
removed. A child that the owner forked in C may hold the pipe open, so the guard looks after its
parent, too: that is the owner while it lives. As nobody else can reap the program, its process id
cannot pass to a stranger while the guard lives, so a signal sent from here hits no other process.

An order is a line ``tag start config`` (tabs for newlines), ``tag signal-number`` or ``tag end``;
the reply is ``tag pid``, where pid is 0 when nothing runs. Imports stay few: they delay the start.
"""

import os
import select
import signal
import sys

IGNORED = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]  # only the owner's end ends the guard
LOOK_EVERY = 0.5  # seconds between two looks at the owner, where nothing is heard of it


def main(directory: str, owner: str, *command: str) -> None:
    """Serve orders until the owner is gone; leave no program and no directory behind."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.mkdir(directory, 0o700)
    os.chdir(directory)
    pid, begun = 0, b""
    try:
        while said := hear(int(owner)):
            *orders, begun = (begun + said).split(b"\n")
            for order in orders:
                tag, verb, *config = order.split(b" ", 2)
                if verb == b"end":
                    return
                if pid and os.waitpid(pid, os.WNOHANG)[0]:
                    pid = 0  # it died by itself
                if pid and verb in (b"start", b"9"):
                    pid = end(pid)
                elif pid and verb != b"0":  # 0 asks whether it lives
                    send(pid, int(verb))
                if verb == b"start":
                    pid = start(command, config[0].replace(b"\t", b"\n"))
                os.write(1, b"%s %d\n" % (tag, pid))
    finally:
        if pid:
            end(pid)
        import shutil

        shutil.rmtree(directory, ignore_errors=True)


def hear(owner: int) -> bytes:
    """Return what the owner says next, nothing once it is gone."""
    while not select.select([0], [], [], LOOK_EVERY)[0]:
        if os.getppid() != owner:
            return b""
    return os.read(0, 65536)


def start(command: tuple[str, ...], config: bytes) -> int:
    """Start the program in a session of its own, its configuration on standard input."""
    source, sink = os.pipe()
    os.write(sink, config)
    os.close(sink)
    try:
        log = (os.POSIX_SPAWN_OPEN, 1, "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, source, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2)]
        return os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigdef=[*IGNORED, signal.SIGPIPE],
            setsigmask=[],
        )
    finally:
        os.close(source)


def end(pid: int) -> int:
    """Kill the program and whatever it forked, frozen or not; return 0 once it is gone."""
    send(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 0


def send(pid: int, number: int) -> None:
    """Send a signal to the program's process group."""
    try:
        os.killpg(pid, number)
    except OSError:
        pass  # it has just died: macOS refuses a signal to a process that waits to be reaped


if __name__ == "__main__":
    main(*sys.argv[1:])
