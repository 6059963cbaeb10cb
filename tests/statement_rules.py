"""The rules for statements, so that the tables can be distributed by namespace over several databases (Citus).

A statement names one namespace, its first parameter, for each use of a table. Then it can be done by the one node that
has the namespace. A query that only reads may name several, or select the namespace as its first column: each node
reads those that it has. What a statement writes does not depend on the node: the nodes have clocks and sequences of
their own.
"""

import pkgutil
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import combinations
from typing import Final

from leasehold.engines import postgres
from leasehold.engines.postgres import move_statements, record_statements, schema
from leasehold.engines.postgres.tables import TABLES
from leasehold.model import KINDS

SCRIPTS: Final = frozenset(schema.load_scripts())
"""Only these define tables. They are run on the coordinator."""
CREATED: Final = re.compile(r"^CREATE TABLE (\w+) \(\s*namespace text\b", re.MULTILINE)
TABLE_NAMES: Final = frozenset(name for script in SCRIPTS for name in CREATED.findall(script))
"""The tables that are distributed."""

QUERY: Final = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b")
USED: Final = re.compile(rf'\b(?:FROM|INTO|UPDATE|JOIN|USING|TABLE|COPY|TRUNCATE)\s+"?(?:{"|".join(TABLE_NAMES)})\b')
NAMED: Final = re.compile(
    r"""\bnamespace\ =\ \$1\b
    | \(namespace,[^)]*\)\s+(?:VALUES\ \(|SELECT\ )\$1\b
    | ^COPY\s+\S+\("namespace",""",
    re.VERBOSE,
)
VOLATILE: Final = re.compile(
    r"\b(?:now|clock_timestamp|statement_timestamp|timeofday|random|nextval|\w*uuid\w*)\s*\(|CURRENT_"
)
SEVERAL: Final = re.compile(r"\bnamespace = ANY\(\$1\b|(?<=\bSELECT\s)\s*namespace\b")
CHANGES_DATA: Final = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\b")
MOVING: Final = re.compile(r"\bSET\s+(?:[^()]*,\s*)?namespace\s*=")
"""A row cannot go from one namespace to another, because that may be on another node."""


def faults(text: str) -> list[str]:
    """Where a statement breaks the rules."""
    if text in SCRIPTS:
        return []
    named = text if CHANGES_DATA.search(text) else SEVERAL.sub(" namespace = $1", text)
    found = [f"no namespace for a table: {part.strip()}" for scope in _scopes(named) for part in _unnamed(scope)]
    found += [f"differs between nodes: {part}" for part in _volatile_changes(text)]
    if MOVING.search(text):
        found.append("changes the namespace of a row")
    return found


def _scopes(text: str) -> Iterator[str]:
    """The queries in a statement, each without those that are nested in it."""
    stack = [""]
    for letter in text:
        if letter == "(":
            stack.append("")
        elif letter == ")" and len(stack) > 1:
            inner = stack.pop()
            if QUERY.match(inner):
                yield inner
                inner = ""
            stack[-1] += f"({inner})"
        else:
            stack[-1] += letter
    yield "(".join(stack)


def _unnamed(scope: str) -> Iterator[str]:
    for part in re.split(r"\bUNION\b", scope):
        if len(USED.findall(part)) > len(NAMED.findall(part)):
            yield part


def _volatile_changes(text: str) -> list[str]:
    """Parts of a statement that change data or return what was changed, and call a function whose result varies."""
    changing = re.findall(r"(?:DO UPDATE SET|RETURNING|UPDATE \w+ SET).*?(?=\bWHERE\b|\n\s*\)|$)", text, re.DOTALL)
    if "INSERT INTO" in text:
        changing.append(text)
    return [part for part in changing if VOLATILE.search(part)]


# All statements ---------------------------------------------------------------------------------------------------

CHANGES: Final = [(kind, removes) for kind in KINDS for removes in (False, True)]
_LOOKS_LIKE_SQL: Final = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|SET|BEGIN|COMMIT|ROLLBACK|CREATE|LOCK)\b")


def written_statements() -> dict[str, str]:
    """The statements of the service by name: all texts of its modules that are SQL, and all that it builds."""
    found = dict(_constants())
    found |= {
        f"{name} of {kind}": text
        for kind, of in record_statements.OF_KIND.items()
        for name, text in vars(of).items()
        if text
    }
    found |= {
        f"load of {kinds}": record_statements.load(kinds)
        for size in range(len(KINDS) + 1)
        for kinds in combinations(KINDS, size)
    }
    found |= {
        f"write of {parts}, {is_told=}": record_statements.write(parts, is_told=is_told)
        for is_told in (False, True)
        for size in range(1, len(KINDS) + 1)
        for parts in combinations(CHANGES, size)
        if len({kind for kind, _ in parts}) == size
    }
    found |= {f"count of {table.name}": move_statements.count_of(table) for table in TABLES.values()}
    found |= {f"removals of {table.name}": move_statements.removals_of(table) for table in TABLES.values()}
    return found


def constants() -> Mapping[str, str]:
    """The statements that are constants of a module, by the name of the constant. A tuple of them has several."""
    return dict(_constants())


def _constants() -> Iterator[tuple[str, str]]:
    for module in pkgutil.walk_packages(postgres.__path__, f"{postgres.__name__}."):
        for name, value in vars(import_module(module.name)).items():
            texts = value if isinstance(value, tuple) else (value,)
            for number, text in enumerate(texts):
                if isinstance(text, str) and name.isupper() and _LOOKS_LIKE_SQL.match(text):
                    yield f"{module.name.rpartition('.')[2]}.{name}{f' {number}' if len(texts) > 1 else ''}", text
