"""The marks `root`, `browser` and `database`: what a test needs from a machine that some machines lack.

    make test ARGS="-m 'not database and not browser and not root'"

No test names them. They follow from what it uses: from `programs.needs`, and from the functions, fixtures and
parameters by which it comes to a PostgreSQL (`databases`). Where that cannot be seen, as in a function that a table
holds, the module says `pytestmark = pytest.mark.database`. A test that starts a PostgreSQL without the mark fails.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import databases
import pytest
from programs import LOOP_MOUNTS, MOUNTS, PID_NAMESPACES

TESTS: Final = Path(__file__).parent
MARKS_BY_NEED: Final = {"chromium": "browser", LOOP_MOUNTS: "root", MOUNTS: "root", PID_NAMESPACES: "root"}
ENTRANCES: Final = (databases.PostgresServer, databases.shared_server_url, databases.database_for, databases.Database)
"""Whoever gets to a database of the tests goes through one of these."""
KIND: Final = "postgres"
"""By this name, as a parameter or in a subscript, tests choose a store on PostgreSQL."""


def add_marks(item: pytest.Function) -> None:
    for need in item.iter_markers("needs"):
        for name in need.args:
            if name in MARKS_BY_NEED:
                item.add_marker(MARKS_BY_NEED[name])
    if _parameter_is_kind(item) or _leads_to_database(item):
        item.add_marker("database")


def _parameter_is_kind(item: pytest.Function) -> bool:
    return hasattr(item, "callspec") and KIND in map(str, item.callspec.params.values())


_by_fixtures: Final[dict[int, tuple[object, bool]]] = {}
"""For each test whether it leads to a database, by the id of what pytest knows of its fixtures. All cases of a
parametrized test share that object, which is kept with the answer."""


def _leads_to_database(item: pytest.Function) -> bool:
    fixtures = item._fixtureinfo
    found = _by_fixtures.get(id(fixtures))
    if found is None:
        found = fixtures, any(uses_database(function) for function in _functions_of(item))
        _by_fixtures[id(fixtures)] = found
    return found[1]


def _functions_of(item: pytest.Function) -> Iterator[Callable[..., Any]]:
    """The test, its class, and the fixtures that it asks for, directly or not."""
    yield item.function
    if item.cls is not None:
        yield item.cls
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        yield definitions[-1].func


_without: Final[dict[int, object]] = {}
"""By their ids, objects that do not lead to an entrance. They are kept, so that no other object gets an id of them."""


@functools.cache
def uses_database(function: Callable[..., Any]) -> bool:
    """Whether a function, or one of the tests' own that it names, names an entrance. Names are followed, not calls."""
    waiting: list[object] = [function]
    seen: dict[int, object] = {}
    while waiting:
        found = waiting.pop()
        if any(found is entrance for entrance in ENTRANCES):
            return True
        if id(found) in seen or id(found) in _without or not _is_ours(found):
            continue
        seen[id(found)] = found
        if isinstance(found, type):
            waiting += vars(found).values()
        elif isinstance(found := inspect.unwrap(found) if callable(found) else found, FunctionType):
            names, constants = _names_and_constants(found.__code__)
            if KIND in constants:
                return True
            waiting += _values_of(names, found)
    _without.update(seen)
    return False


def _is_ours(found: object) -> bool:
    name = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", None)
    return isinstance(name, str) and _is_of_the_tests(name)


@functools.cache
def _is_of_the_tests(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and Path(file).is_relative_to(TESTS)


def _names_and_constants(code: CodeType) -> tuple[set[str], set[str]]:
    names, constants = set(code.co_names), {each for each in code.co_consts if isinstance(each, str)}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            inner_names, inner_constants = _names_and_constants(inner)
            names |= inner_names
            constants |= inner_constants
    return names, constants


def _values_of(names: set[str], function: FunctionType) -> Iterator[object]:
    """What global names stand for, and what they stand for in the tests' modules that are named."""
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, ModuleType) and _is_ours(value):
            yield from (vars(value)[inner] for inner in names if inner in vars(value))
