"""What may be shown of a URL: one that holds a password is never shown as it is."""

import re

from cachelab._secret import Secret

# One @ at most, before the host: where there are more, or one behind it, a password that was not
# written as %XX may reach beyond them. Without one, user and password may stand for host and port.
_SHOWABLE = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]*)://
    (?:(?P<user>[^@/?\#\s]*)@)?
    (?P<host>[\w.~,%-]*|\[[\w:.%]+\](?::\d{1,5},\[[\w:.%]+\])*)
    (?P<port>(?::[\w,:.-]*)?)
    (?P<path>(?:/[^@?\#]*)?)
    (?:[?\#][^@]*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)
_NO_PORT = re.compile(r":(?!\d{1,5}$)")


def address(url: object) -> str:
    """Return what may be shown of a URL: no user, no password, no options.

    Where it cannot be told for sure which part of it is a password, that is the scheme alone.

    >>> address("rediss://me:secret@cache.example:6380/2?ssl_cert_reqs=none")
    'rediss://cache.example:6380/2'
    >>> address("redis://me:unescaped@secret@cache.example"), address("redis://default:secret")
    ('redis://...', 'redis://...')
    >>> address(b"redis://:secret@cache.example")
    'a bytes'
    """
    if not isinstance(url, str):
        return f"a {type(url).__name__}"
    found = _SHOWABLE.fullmatch(url)
    if found and (found["user"] is not None or not _NO_PORT.match(found["port"])):
        return f"{found['scheme']}://{found['host']}{found['port']}{found['path']}"
    scheme = _SCHEME.match(url)
    return f"{scheme[1]}://..." if scheme else "a text without ://"


def hide(url: object) -> "Secret | type | None":
    """Return a URL so that no traceback's local variables show it; of what is no text, its type.

    To be called first, with the name of the argument bound anew, in whatever is handed a URL.
    """
    if url is None:
        return None
    return Secret(str.__str__(url)) if isinstance(url, str) else type(url)
