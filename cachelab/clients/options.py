"""What a URL says: where the server is, and options; each is checked before it is used."""

import codecs
import re
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.connection import parse_ssl_verify_flags

from cachelab._check import LONGEST_WAIT
from cachelab._secret import Secret

_ESCAPED = "special characters in the password written as %XX"
FORM = (
    "must read redis://user:password@host:port/database with a port of 1 to 65535 and a database "
    f"of 0 or more, {_ESCAPED}"
)
FORMS = {
    "sentinel": "must read redis-sentinel://user:password@host:port,host:port/service with the "
    f"addresses of Sentinels, ports of 1 to 65535, the name that they give the service, {_ESCAPED}",
    "cluster": "must read redis-cluster://user:password@host:port,host:port with addresses of "
    f"nodes, ports of 1 to 65535, no database, {_ESCAPED}",
}
PORTS = {"sentinel": 26379, "cluster": 6379}  # where an address names none

_Rule = tuple[Callable[[str], Any], str]  # raises ValueError or LookupError; what it allows


def _between(kind: type, low: float, high: float, what: str) -> _Rule:
    def convert(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return convert, what


def _one_of(values: dict[str, Any]) -> _Rule:
    return lambda text: values[text.lower()], f"one of {', '.join(values)}"


def _codec(text: str) -> str:
    name = codecs.lookup(text).name
    if "HELLO 3".encode(name) != b"HELLO 3":  # what Redis understands
        raise ValueError
    return name


def _error_handler(text: str) -> str:
    codecs.lookup_error(text)
    return text


_TEXT: _Rule = (str, "a text")
_SECRET: _Rule = (Secret, "a text")
_SECONDS = _between(float, 1e-6, LONGEST_WAIT, "a number of seconds above 0")
_YES_OR_NO = _one_of(
    {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
    | {"y": True, "n": False, "t": True, "f": False}
)
_FLAGS: _Rule = (parse_ssl_verify_flags, "names of ssl.VerifyFlags, with commas between them")

# The options of redis-py that can be written as text, each where it has a meaning.
_EVERYWHERE: dict[str, _Rule] = {
    "client_name": _TEXT,
    "db": _between(int, 0, 2**31 - 1, "a whole number of 0 or more"),
    "decode_responses": _YES_OR_NO,
    "encoding": (_codec, "a name of an encoding that keeps ASCII as it is, such as utf-8"),
    "encoding_errors": (_error_handler, "a name such as strict or replace"),
    "health_check_interval": _between(int, 0, 10**6, "a whole number of seconds, 0 or more"),
    "legacy_responses": _YES_OR_NO,
    "lib_name": _TEXT,
    "lib_version": _TEXT,
    "max_connections": _between(int, 1, 2**16, "a whole number of 1 to 65536"),
    "password": _SECRET,
    "protocol": _between(int, 2, 3, "2 or 3"),
    "retry_on_timeout": _YES_OR_NO,
    "socket_connect_timeout": _SECONDS,
    "socket_read_size": _between(int, 1, 2**30, "a whole number of bytes, 1 or more"),
    "socket_timeout": _SECONDS,
    "timeout": _between(float, 0, LONGEST_WAIT, "a number of seconds, 0 or more"),
    "username": _SECRET,
}
_TCP: dict[str, _Rule] = {
    "host": _TEXT,
    "port": _between(int, 1, 65535, "a whole number of 1 to 65535"),
    "socket_keepalive": _YES_OR_NO,
    "socket_type": _between(int, 0, 255, "a number of an address family"),
}
_TLS: dict[str, _Rule] = {
    "ssl_ca_certs": _TEXT,
    "ssl_ca_data": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_cert_reqs": _one_of({name: name for name in ("none", "optional", "required")}),
    "ssl_certfile": _TEXT,
    "ssl_check_hostname": _YES_OR_NO,
    "ssl_ciphers": _TEXT,
    "ssl_exclude_verify_flags": _FLAGS,
    "ssl_include_verify_flags": _FLAGS,
    "ssl_keyfile": _TEXT,
    "ssl_min_version": (lambda text: ssl.TLSVersion(int(text)), "a number of ssl.TLSVersion"),
    "ssl_password": _SECRET,
}
_TLS_SYNC: dict[str, _Rule] = {
    "ssl_ocsp_expected_cert": _TEXT,
    "ssl_validate_ocsp": _YES_OR_NO,
    "ssl_validate_ocsp_stapled": _YES_OR_NO,
}

_CLUSTER = _EVERYWHERE | _TCP | {"replica": _YES_OR_NO}
for _single in ("db", "host", "port"):
    del _CLUSTER[_single]
_SENTINEL = _CLUSTER | {
    "db": _EVERYWHERE["db"],
    "sentinel_password": _SECRET,
    "sentinel_username": _SECRET,
}

OPTIONS: dict[str, dict[str, _Rule]] = {
    "redis": _EVERYWHERE | _TCP,
    "rediss": _EVERYWHERE | _TCP | _TLS | _TLS_SYNC,
    "unix": _EVERYWHERE | {"path": _TEXT},
    "redis-cluster": _CLUSTER,
    "rediss-cluster": _CLUSTER | _TLS | _TLS_SYNC,
    "redis-sentinel": _SENTINEL,
    "rediss-sentinel": _SENTINEL | _TLS | _TLS_SYNC,
}
ASYNC_OPTIONS = {
    scheme: {name: rule for name, rule in rules.items() if name not in _TLS_SYNC}
    for scheme, rules in OPTIONS.items()
}

_SPOKEN = {"pool": "max_connections", "size": "max_connections", "user": "username"}


def read(url: Secret, options: dict[str, dict[str, _Rule]]) -> dict[str, Any] | str:
    """Return what a URL says, as arguments of redis-py's, or what is wrong with it.

    It raises nothing: the variables of a frame that raises can be seen, and here they hold pieces
    of the URL.
    """
    scheme, rest = _split(url)
    if scheme not in options:
        shown = repr(scheme) if scheme else "no scheme"
        known = "redis://, rediss://, unix://, redis-cluster:// or redis-sentinel://"
        return f"must begin with {known}, not {shown}"
    form = FORMS.get(kind_of(scheme), FORM)
    try:
        url.encode()
        parts = urlsplit(url)
        place = _PLACES.get(kind_of(scheme) or scheme, _tcp)(parts)
        said = parse_qsl(parts.query, keep_blank_values=True)
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        for name, text in (("username", user), ("password", password)):
            if text:
                place[name] = Secret(unquote(text))
    except ValueError:
        return form
    chosen: dict[str, Any] = {}
    for name, text in said:
        if wrong := _wrong(name, text, scheme, options):
            return wrong
        chosen.setdefault(name, options[scheme][name][0](text))
    if "db" in chosen:
        place.pop("db", None)
    return chosen | place


def kind_of(scheme: str) -> str:
    """Return "cluster" or "sentinel" where a scheme asks for one, "" where for one server."""
    return scheme.partition("-")[2]


def _split(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    is_scheme = separator and re.fullmatch(r"[a-zA-Z][\w+.-]{0,30}", scheme)
    return (scheme.lower(), rest) if is_scheme else ("", url)


def _unix(parts: Any) -> dict[str, Any]:
    return {"path": unquote(parts.path)} if parts.path else {}


def _tcp(parts: Any) -> dict[str, Any]:
    place: dict[str, Any] = {}
    if parts.hostname:
        place["host"] = unquote(parts.hostname)
        place["host"].encode("idna")
    if parts.port == 0:
        raise ValueError
    if parts.port is not None:
        place["port"] = parts.port
    if database := parts.path.strip("/"):
        place["db"] = _EVERYWHERE["db"][0](unquote(database))
    return place


def _cluster(parts: Any) -> dict[str, Any]:
    if parts.path.strip("/"):
        raise ValueError
    return {"nodes": _addresses(parts.netloc, PORTS["cluster"])}


def _sentinel(parts: Any) -> dict[str, Any]:
    service = unquote(parts.path.removeprefix("/"))
    if not service or "/" in service:
        raise ValueError
    return {"nodes": _addresses(parts.netloc, PORTS["sentinel"]), "service": service}


def _addresses(netloc: str, port: int) -> tuple[tuple[str, int], ...]:
    """Return host and port of each address in a URL that may name several."""
    places: dict[tuple[str, int], None] = {}
    for text in netloc.rpartition("@")[2].split(","):
        place = {"port": port} | _tcp(urlsplit(f"//{text}"))
        if "host" not in place or "db" in place:
            raise ValueError
        places[place["host"], place["port"]] = None
    return tuple(places)


_PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "unix": _unix,
    "cluster": _cluster,
    "sentinel": _sentinel,
}


def _wrong(name: str, text: str, scheme: str, options: dict[str, dict[str, _Rule]]) -> str | None:
    """Return what is wrong with an option; its value is not shown."""
    if not re.fullmatch(r"[A-Za-z]\w{0,40}", name):
        return f"has options that are not written as name=value; {FORMS.get(kind_of(scheme), FORM)}"
    if name not in options[scheme]:
        return f"has the option {name}, {_instead(name, scheme, options)}"
    convert, what = options[scheme][name]
    try:
        convert(text)
    except (ValueError, LookupError, AttributeError):
        return f"has the option {name}, which must be {what}"
    return None


def _instead(name: str, scheme: str, options: dict[str, dict[str, _Rule]]) -> str:
    """Return why an option is none here, and what to write."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    if plain in ("tls", "ssl", "usetls", "usessl", "secure"):
        return "which is none of redis-py's: a URL that begins with rediss:// asks for TLS"
    others = [other for other in options if name in options[other]]
    if others:
        return f"which belongs to {others[0]}://: begin with that, or leave it out"
    if any(name in known for known in OPTIONS.values()):
        return "which only connect() knows: leave it out for connect_async()"
    import difflib  # only a mistake pays for it

    known = {re.sub(r"[^a-z]", "", other): other for other in options[scheme]}
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
    meant = [known[match] for match in close]
    meant += [option for word, option in _SPOKEN.items() if word in plain]
    if meant:
        return f"which is none of redis-py's: write {meant[0]}"
    return f"which is none of redis-py's; these are: {', '.join(sorted(options[scheme]))}"
