"""As each cell of a kernel begins: charts look at a new stretch, and learners find each other.

Keys of a lesson are the same for everybody, and a server counts for all. So a kernel that uses a
server which the environment names leaves a mark there; who finds another's is told so, once.
"""

import atexit
import functools
import hashlib
import os
import socket
import sys
from contextlib import suppress
from typing import Any

import redis
from redis.utils import str_if_bytes

from cachelab import connect, server_url
from cachelab.clients import answered, client

MARK = "cachelab:learner"
LIVES = 900  # seconds after a cell; few read longer between two


def attend() -> None:
    """Attend to this kernel's cells, from the next one on; once is enough."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell:
        shell.events.register("pre_run_cell", begin)


def begin(info: object = None) -> None:
    """Begin a stretch, and tell of a learner who was not there before."""
    answered.turn()
    with suppress(redis.RedisError, OSError, ValueError):  # the lesson's own calls will say it
        other = _meet()
        if other not in _known:
            _known.add(other)
            print(_told(), file=sys.stderr)
    answered.forget()


def _meet() -> str:
    """Leave this learner's mark on the server in use, and return whose stood there."""
    if not client.variables() or not client.is_shared(server_url()):
        return _ME
    server = _server()
    before: Any = server.set(MARK, _ME, ex=LIVES, get=True)
    return str_if_bytes(before or _ME)


@functools.cache
def _server() -> redis.Redis:
    server = connect(check=False, retries=0)
    atexit.register(_leave, server)
    return server


def _leave(server: redis.Redis) -> None:
    with suppress(redis.RedisError, OSError):
        mark: Any = server.get(MARK)
        if str_if_bytes(mark) == _ME:
            server.delete(MARK)


def _told() -> str:
    names = " ".join(client.variables())
    return (
        "Another learner is at work on this server: keys and counts of the two of you mix. "
        f"`unset {names}` before `make lab` gives you a server of your own."
    )


def _learner() -> str:
    """Return what tells learners apart: a kernel that is restarted is still the same one's."""
    jupyter = os.environ.get("JPY_PARENT_PID", os.getppid())
    told = f"{socket.gethostname()} {os.path.expanduser('~')} {jupyter}"
    return hashlib.blake2b(told.encode(errors="replace"), digest_size=8).hexdigest()


_ME = _learner()
_known = {_ME}
