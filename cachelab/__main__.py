"""python -m cachelab: see `cachelab.cli`."""

import signal

from cachelab.cli.commands import main

if __name__ == "__main__":
    # What ends a command leaves as little behind as Ctrl-C. Windows has no SIGHUP.
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it, and is to be heeded
            signal.signal(number, signal.default_int_handler)
    raise SystemExit(main())
