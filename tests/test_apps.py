"""What all applications have in common: each asyncio class and its twin read alike."""

import importlib
import inspect
import pkgutil

import pytest

import cachelab.apps

MODULES = [
    importlib.import_module(f"cachelab.apps.{found.name}")
    for found in pkgutil.iter_modules(cachelab.apps.__path__)
]
TWINS = {
    name: (one, vars(module)[name.removeprefix("Async")])
    for module in MODULES
    for name, one in vars(module).items()
    if name.startswith("Async") and getattr(one, "__module__", "") == module.__name__
}


def public(one: type) -> dict[str, object]:
    return {name: getattr(one, name) for name in dir(one) if not name.startswith("_")}


def told(function: object) -> list[tuple[str, object]]:
    """Return the arguments of a function, each with its default."""
    found = inspect.signature(function).parameters.values()
    return [(argument.name, argument.default) for argument in found]


@pytest.mark.parametrize("name", TWINS)
def test_the_twin_has_the_same_methods_with_the_same_arguments(name):
    one, twin = TWINS[name]
    methods, blocking = public(one), public(twin)
    assert methods.keys() == blocking.keys() - {"core"}
    for method, function in methods.items():
        if inspect.isfunction(function):
            assert told(function) == told(blocking[method]), method
            is_made = inspect.iscoroutinefunction(function)
            assert is_made and not inspect.iscoroutinefunction(blocking[method])
    assert told(one.__init__) == told(twin.__init__)


def test_there_are_twins():
    assert {
        "AsyncSessions",
        "AsyncCart",
        "AsyncStock",
        "AsyncFeed",
        "AsyncCatalogue",
        "AsyncResponses",
        "AsyncService",
        "AsyncSlidingWindow",
        "AsyncTokenBucket",
        "AsyncTrending",
    } <= TWINS.keys()
