"""What a URL says: options are checked by name, value and scheme, and no URL is shown in full."""

import asyncio
import gc
import inspect
import logging
import os
import ssl
import subprocess
import sys
import weakref
from fractions import Fraction

import numpy as np
import pytest
import redis
from doors import certificate, door, listener
from redis.cache import CacheConfig

import cachelab as cl
from cachelab._urls import address
from cachelab.clients import check_client, client, deadlines, deadlines_async
from cachelab.clients.options import ASYNC_OPTIONS, OPTIONS

SECRET = "s3cr3t-word"
BOTH = (lambda url: cl.connect(url, check=False), cl.connect_async)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"REDIS_{name}", raising=False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h?tls=true", "tls.*rediss://"),
        ("redis://h?SSL=1", "SSL.*rediss://"),
        ("redis://h?poolSize=5", "poolSize.*max_connections"),
        ("redis://h?maxConnections=5", "maxConnections.*max_connections"),
        ("redis://h?socketTimeout=5", "socketTimeout.*socket_timeout"),
        ("redis://h?nonsense=5", "nonsense.*these are: client_name, db"),
        ("redis://h?ssl_cert_reqs=none", "ssl_cert_reqs.*rediss://"),
        ("unix:///s?socket_keepalive=yes", "socket_keepalive.*redis://"),
        ("redis://h?path=/s", "path.*unix://"),
        ("redis://h?cache_config=1", "cache_config"),
        ("redis://h?retry_on_error=x", "retry_on_error"),
        ("redis://h?db=x", "db.*whole number"),
        ("redis://h?db=-1", "db.*whole number"),
        ("redis://h/-1", "database of 0 or more"),
        ("redis://h?socket_timeout=0", "socket_timeout.*above 0"),
        ("redis://h?socket_timeout=nan", "socket_timeout.*above 0"),
        ("redis://h?socket_timeout=1e300", "socket_timeout.*above 0"),
        ("redis://h?timeout=-1", "timeout.*0 or more"),
        ("redis://h?max_connections=0", "max_connections.*1 to 65536"),
        ("redis://h?max_connections=1e9", "max_connections.*1 to 65536"),
        ("redis://h?protocol=4", "protocol.*2 or 3"),
        ("redis://h?health_check_interval=x", "health_check_interval.*seconds"),
        ("redis://h?encoding=klingon", "encoding.*name"),
        ("redis-cluster://h?encoding=utf-16", "encoding.*keeps ASCII"),
        ("redis://h?encoding=base64", "encoding.*keeps ASCII"),
        ("redis://h?decode_responses=maybe", "decode_responses.*one of yes"),
        ("redis://h?socket_keepalive=", "socket_keepalive.*one of yes"),
        ("redis://h?port=0", "port.*65535"),
        ("rediss://h?ssl_cert_reqs=perhaps", "ssl_cert_reqs.*none, optional"),
        ("rediss://h?ssl_min_version=9", "ssl_min_version"),
        ("rediss://h?ssl_include_verify_flags=X", "ssl_include_verify_flags"),
        ("redis://h?db", "name=value|db"),
        (f"redis://h?{SECRET}@x=1", "name=value"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(url, says):
    for connect in BOTH:
        with pytest.raises(ValueError, match=says) as caught:
            connect(url)
        assert SECRET not in str(caught.value)


def test_an_option_of_the_other_flavour_is_refused():
    url = "rediss://h?ssl_validate_ocsp=yes"
    assert cl.connect(url, check=False)
    with pytest.raises(ValueError, match="ssl_validate_ocsp.*connect_async"):
        cl.connect_async(url)


@pytest.mark.parametrize("module", [deadlines, deadlines_async])
def test_every_option_of_redis_py_that_can_be_written_as_text_is_known(module):
    objects = {
        *(
            "self",
            "args",
            "kwargs",
            "settings",
            "retry",
            "retry_on_error",
            "parser_class",
            "parser",
        ),
        *("credential_provider", "redis_connect_func", "command_packer", "event_dispatcher"),
        *("driver_info", "encoder_class", "himport_registry", "mode", "socket_keepalive_options"),
        *("ssl_ocsp_context", "maintenance_notification_hash", "maintenance_state"),
    }
    known = OPTIONS if module is deadlines else ASYNC_OPTIONS
    for scheme, kind in module.BY_SCHEME.items():
        inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
        names = {name for init in inits for name in inspect.signature(init).parameters}
        names = {
            name for name in names - objects if not name.startswith(("maint_", "orig_", "oss_"))
        }
        assert names | {"max_connections", "timeout"} == set(known[scheme])


def test_options_reach_the_connections(server):
    url = f"{server.url}?socket_timeout=3&max_connections=7&client_name=me&decode_responses=no&db=1"
    pool = cl.connect(url).connection_pool
    assert pool.max_connections == 7 and pool.connection_kwargs["socket_timeout"] == 3.0
    own = cl.connect(url)
    assert own.echo("é") == "é".encode() and own.client_info()["db"] == 1
    assert cl.connect(f"{server.url}?lib_name=lessons", check=False)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"PORT": "tcp://10.0.0.1:6379"}, "REDIS_PORT.*tcp://10.0.0.1:6379.*Kubernetes.*REDIS_URL"),
        ({"PORT": "99999"}, "REDIS_PORT.*1 to 65535"),
        ({"PORT": "٣"}, "REDIS_PORT.*1 to 65535"),
        ({"HOST": f"redis://:{SECRET}@h"}, "REDIS_HOST.*without scheme"),
        ({"HOST": "h:6379"}, "REDIS_HOST.*without scheme"),
        ({"PASSWORD": f"{SECRET}\udcff"}, "REDIS_PASSWORD.*UTF-8"),
        ({"URL": f"redis://:{SECRET}@h?tls=1"}, "REDIS_URL has the option tls"),
        ({"URL": f"redis://default:{SECRET}"}, "REDIS_URL must read"),
        ({"URL": f"redis://:{SECRET}\udcff@h"}, "REDIS_URL must read"),
    ],
)
def test_the_variable_that_is_wrong_is_named(monkeypatch, names, says):
    for name, value in names.items():
        monkeypatch.setenv(f"REDIS_{name}", value)
    for connect in (cl.connect, cl.connect_async):
        with pytest.raises(ValueError, match=says) as caught:
            connect()
        assert SECRET not in str(caught.value)


def test_only_the_variables_that_are_set_are_named(monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    with pytest.raises(cl.RedisUnavailable) as caught:
        monkeypatch.setenv("REDIS_PORT", "1")
        cl.connect()
    said = str(caught.value)
    assert (
        "correct REDIS_PORT, REDIS_PASSWORD" in said and "`unset REDIS_PORT REDIS_PASSWORD`" in said
    )
    with pytest.raises(cl.RedisUnavailable) as caught:
        cl.connect("redis://127.0.0.1:2")  # named by an argument
    assert "unset" not in str(caught.value)


class Written:
    def __str__(self) -> str:
        return f"redis://:{SECRET}@h:port"

    __repr__ = __str__


HIDING = [
    f"redis://:{SECRET}@h:99999",
    f"redis://h/0?password=a@{SECRET}&tls=1",
    f"redis://default:{SECRET}",
    f"redis://me:a/{SECRET}@h",
    f"redis://me:a?{SECRET}@h",
    f"redis://me:a#{SECRET}@h",
    f"redis://me:a@{SECRET}@h:x",
    f"http://me:{SECRET}@h",
    f"{SECRET}:x@h:6379",
    f"redis://:{SECRET}\udcff@h:1",
    f"redis://[{SECRET}",
    f"redis://:{SECRET}@127.0.0.1:1",
    f"redis://h?username={SECRET}&nonsense=1",
    f"redis://:{SECRET}@h/{SECRET[:0]}x",
    f"rediss://:x@h?ssl_password={SECRET}&db=x",
    f"redis://:{SECRET}@h".encode(),
    b"redis://:" + SECRET.encode() + b"\xff@h",
    [f"redis://:{SECRET}@h"],
    Written(),
]


def shown(error: BaseException) -> str:
    """Return what error says, and the variables of cachelab's frames in its traceback."""
    texts, step = [str(error), repr(error)], error.__traceback__
    while step := step.tb_next:
        if "/cachelab/" in step.tb_frame.f_code.co_filename:
            texts.append(repr(step.tb_frame.f_locals))
    assert len(texts) > 2 and error.__context__ is None
    return " ".join(texts)


@pytest.mark.parametrize("url", HIDING, ids=range(len(HIDING)))
def test_neither_an_error_nor_its_tracebacks_variables_show_a_password(url):
    with pytest.raises((ValueError, TypeError, cl.RedisUnavailable)) as caught:
        cl.connect(url)
    assert SECRET not in shown(caught.value)
    with pytest.raises((ValueError, TypeError)) as caught:
        cl.connect_async(url, timeout=1 if "127.0.0.1" not in str(url) else 0)
    assert SECRET not in shown(caught.value)
    assert SECRET not in address(url)


def test_a_naive_traceback_shows_its_variables():
    def naive(url):
        raise ValueError("bad URL")

    with pytest.raises(ValueError) as caught:
        naive(f"redis://:{SECRET}@h")
    assert SECRET in repr(caught.traceback[-1].frame.f_locals)


def test_clients_and_pools_do_not_show_a_password():
    for connect in BOTH:
        made = connect(f"redis://{SECRET}:{SECRET}@h")
        assert SECRET not in repr(
            [made, made.connection_pool, made.connection_pool.connection_kwargs]
        )
    assert SECRET not in repr(client._clients) + repr(dict(client._clients))


@pytest.mark.parametrize(
    ("retries", "timeout"),
    [(np.int8(2), np.float32(0.5)), (2, Fraction(1, 2)), (np.uint64(2), 0.5)],
)
def test_numbers_of_any_type_are_the_numbers_that_they_are(server, retries, timeout):
    for connect in (cl.connect, cl.connect_async):
        assert connect(server.url, retries=retries, timeout=timeout) is connect(
            server.url, retries=2, timeout=0.5
        )


@pytest.mark.parametrize("bad", [{"retries": 10**400}, {"timeout": 10**400}, {"timeout": 1e300}])
def test_numbers_out_of_range_are_refused(server, bad):
    for connect in (cl.connect, cl.connect_async):
        with pytest.raises(ValueError, match=next(iter(bad))):
            connect(server.url, **bad)


def test_a_client_that_nobody_holds_is_closed_when_others_came_since(server):
    kept = cl.connect(f"{server.url}?client_name=kept")
    gone = weakref.ref(cl.connect(f"{server.url}?client_name=gone"))
    for n in range(client.LATEST):
        assert gone() is not None
        cl.connect(f"{server.url}?client_name=n{n}")
    assert gone() is None
    names = [connection["name"] for connection in kept.client_list()]
    assert "gone" not in names and "kept" in names
    assert cl.connect(f"{server.url}?client_name=kept") is kept


def test_what_still_uses_a_clients_pool_is_left_alone(server):
    pipeline = cl.connect(f"{server.url}?client_name=pipe").pipeline()
    for n in range(client.LATEST):
        cl.connect(f"{server.url}?client_name=n{n}")
    assert pipeline.ping().execute() == [True]


def test_an_async_client_that_nobody_holds_is_closed_in_its_loop(server):
    async def use():
        gone = weakref.ref(cl.connect_async(f"{server.url}?client_name=gone"))
        await gone().ping()
        for n in range(client.LATEST):
            cl.connect_async(f"{server.url}?client_name=n{n}")
        gc.collect()
        assert gone() is None
        plain = cl.connect(server.url)
        while "gone" in [each["name"] for each in plain.client_list()]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(use(), 20))


def embedded(code: str, *, is_terminal: bool = False, module: bool = False) -> str:
    """Return what a process says that was given no server."""
    environment = {name: value for name, value in os.environ.items() if "REDIS" not in name}
    command = [sys.executable, *(["-m", "cachelab", "doctor"] if module else ["-c", code])]
    if not is_terminal:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        return done.stderr
    main, side = os.openpty()
    try:
        done = subprocess.run(command, env=environment, stdin=side, capture_output=True, text=True)
    finally:
        os.close(main)
        os.close(side)
    return done.stderr


def test_a_process_that_was_given_no_server_says_once_that_it_starts_its_own():
    code = "import cachelab as cl; cl.connect(); cl.server_url()"
    assert embedded(code).count("REDIS_URL is set") == 1
    assert "REDIS_URL" not in embedded(code, is_terminal=True)
    assert "no REDIS_URL" not in embedded("", module=True)
    kernel = "import sys, types; sys.modules['ipykernel'] = types.ModuleType('ipykernel');"
    assert "REDIS_URL" not in embedded(kernel + code)


def test_the_warning_is_one_of_the_cachelab_logger(caplog, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which other tests import
    client._say_embedded.cache_clear()
    with caplog.at_level(logging.WARNING, "cachelab"):
        client._say_embedded()
    assert [record.name for record in caplog.records] == ["cachelab"] * (not sys.stdout.isatty())


def test_a_bad_certificate_is_named_and_tls_is_kept(server, tmp_path):
    with door(server.url, "rediss", tmp_path) as url:
        with pytest.raises(cl.RedisUnavailable, match="certificate.*ssl_ca_certs") as caught:
            cl.connect(url.partition("?")[0])
        assert "redis://" not in str(caught.value).replace("rediss://", "")


def test_a_port_that_does_not_speak_tls_is_told_apart(server):
    with pytest.raises(cl.RedisUnavailable, match="does not speak TLS.*redis://"):
        cl.connect(server.url.replace("redis://", "rediss://"))


def test_a_port_that_refuses_the_handshake_is_told_apart(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2

    def serve(peer):
        context.wrap_socket(peer, server_side=True)

    with listener(serve) as url:
        patient = "socket_timeout=20&socket_connect_timeout=20"
        least = f"ssl_min_version={int(ssl.TLSVersion.TLSv1_3)}"
        new = f"{url.replace('redis://', 'rediss://')}?{least}&{patient}"
        with pytest.raises(cl.RedisUnavailable, match="refuses TLS") as caught:
            cl.connect(new)
        assert "redis://" not in str(caught.value).replace("rediss://", "")


def test_a_port_that_speaks_tls_is_told_from_plain_redis(server, tmp_path):
    with door(server.url, "rediss", tmp_path) as url:
        plain = url.replace("rediss://", "redis://").partition("?")[0]
        with pytest.raises(cl.RedisUnavailable, match="rediss://|cannot be used|in time"):
            cl.connect(plain)


class Cluster(redis.RedisCluster):
    def __init__(self):
        pass

    def __del__(self):
        pass

    def get_nodes(self):
        return []


def test_a_client_is_checked_by_its_kind(server):
    own, twin = cl.connect(server.url), cl.connect_async(server.url)
    check_client(own, "sync", "connect")
    check_client(twin, "async", "connect_async")
    check_client(Cluster(), "sync", "connect")
    for wrong, kind, says in [
        (twin, "sync", r"connect\(\) returns, a redis"),
        (own, "async", r"connect\(\) returns, a redis"),
        (own.pipeline(), "sync", "pipeline"),
        (twin.pipeline(), "async", "pipeline"),
        (None, "sync", "NoneType"),
    ]:
        with pytest.raises(TypeError, match=says):
            check_client(wrong, kind, "connect")


def test_a_client_with_a_cache_of_its_own_is_refused(server):
    caching = redis.Redis(protocol=3, cache_config=CacheConfig())
    with pytest.raises(ValueError, match="cache_config"):
        check_client(caching, "sync", "connect")
