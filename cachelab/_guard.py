"""Keep watch over one embedded server: a small process of its own, started by ``cachelab.server`` as a script.

It is the server's parent and reads orders from a pipe that the owner holds. End of file means that the owner is gone,
whatever ended it (SIGKILL included): the server is killed, its directory removed. As nobody else can reap the server,
its process id cannot pass to a stranger while the guard lives, so a signal sent from here hits no other process.

An order is a line ``tag start config`` (tabs for newlines) or ``tag signal-number``; the reply is ``tag pid``, where
pid is 0 when no server runs. Imports stay few: they delay the server's start.
"""

import os
import signal
import sys

IGNORED = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]  # only the owner's end ends the guard


def main(directory: str, *command: str) -> None:
    """Serve orders until end of file; leave no server and no directory behind."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.mkdir(directory, 0o700)
    os.chdir(directory)
    pid = 0
    try:
        while order := sys.stdin.buffer.readline():
            tag, verb, *config = order.rstrip(b"\n").split(b" ", 2)
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


def start(command: tuple[str, ...], config: bytes) -> int:
    """Start the server in a session of its own, its configuration on standard input; return its pid."""
    source, sink = os.pipe()
    os.write(sink, config)
    os.close(sink)
    try:
        log = (os.POSIX_SPAWN_OPEN, 1, "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, source, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2)]
        signals = [*IGNORED, signal.SIGPIPE]
        return os.posix_spawnp(
            command[0], command, os.environ, file_actions=actions, setsid=True, setsigdef=signals, setsigmask=[]
        )
    finally:
        os.close(source)


def end(pid: int) -> int:
    """Kill the server and whatever it forked (a snapshot in progress), frozen or not; return 0 once it is gone."""
    send(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 0


def send(pid: int, number: int) -> None:
    """Send a signal to the server's process group."""
    try:
        os.killpg(pid, number)
    except OSError:
        pass  # it has just died: macOS refuses a signal to a process that waits to be reaped


if __name__ == "__main__":
    main(*sys.argv[1:])
