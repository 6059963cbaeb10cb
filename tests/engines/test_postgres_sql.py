"""The rules for every statement, so that the tables can be distributed by namespace over several databases (Citus)."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from leasehold.engines.postgres import sql
from leasehold.engines.postgres.tables import TABLES
from leasehold.model import KINDS

CHANGES = [(kind, removes) for kind in KINDS for removes in (False, True)]
STATEMENTS: dict[str, str] = {
    **{
        name: text
        for name, text in vars(sql).items()
        if isinstance(text, str) and name.isupper() and name not in ("CHANNEL", "SEPARATOR")
    },
    **{f"removal {number}": text for number, text in enumerate(sql.REMOVE_EVERYTHING)},
    **{f"{name} of {kind}": text for kind, of in sql.OF_KIND.items() for name, text in vars(of).items() if text},
    **{f"load of {kinds}": sql.load(kinds) for size in range(len(KINDS) + 1) for kinds in combinations(KINDS, size)},
    **{
        f"write of {parts}": sql.write(parts)
        for size in range(1, len(KINDS) + 1)
        for parts in combinations(CHANGES, size)
        if len({kind for kind, _ in parts}) == size
    },
}
TABLE_NAMES = ("head", "writers", "deletions", "batches", *(table.name for table in TABLES.values()))
USED = re.compile(rf"\b(?:FROM|INTO|UPDATE|JOIN) (?:{'|'.join(TABLE_NAMES)})\b")
NAMED = re.compile(r"namespace = \$1\b|\(namespace,[^)]*\)\s+(?:VALUES \(\$1\b|SELECT \$1\b)")
VOLATILE = re.compile(
    r"\b(?:now|clock_timestamp|statement_timestamp|timeofday|random|nextval|\w*uuid\w*)\s*\(|CURRENT_"
)


def volatile_changes(text: str) -> list[str]:
    """Parts of a statement that change data or return what was changed, and call a function whose result varies."""
    changing = re.findall(r"(?:DO UPDATE SET|RETURNING|UPDATE \w+ SET).*?(?=\bWHERE\b|\n\s*\)|$)", text, re.DOTALL)
    return [part for part in changing if VOLATILE.search(part)]


def unnamed_uses(text: str) -> int:
    """How many uses of a table have no namespace."""
    return max(len(USED.findall(text)) - len(NAMED.findall(text)), 0)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_gives_the_namespace_for_each_table_that_it_uses(name: str) -> None:
    assert unnamed_uses(STATEMENTS[name]) == 0


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_that_changes_data_uses_no_volatile_function(name: str) -> None:
    text = STATEMENTS[name]
    assert volatile_changes(text) == []
    if "INSERT INTO" in text:
        assert not VOLATILE.search(text), "what is inserted must be the same on every node"


def test_statements_that_break_these_rules_are_found() -> None:
    assert unnamed_uses("SELECT key FROM data WHERE key = $1") == 1
    assert unnamed_uses("INSERT INTO head (revision) VALUES ($1)") == 1
    assert unnamed_uses("SELECT 1 FROM data WHERE namespace = $1 UNION ALL SELECT 2 FROM locks WHERE lock_id = $2") == 1
    assert volatile_changes("INSERT INTO writers VALUES ($1) ON CONFLICT DO UPDATE SET written_at = now()")
    assert volatile_changes("UPDATE head SET revision = $2 WHERE namespace = $1 RETURNING clock_timestamp()")


def test_only_the_module_for_backups_names_the_kinds() -> None:
    """So a new kind needs its table, its migration and a line in `tables`."""
    folder = Path(sql.__file__).parent
    named = re.compile(r"\b(?:ENTRY|LEASE|Entry|Lease|Deletion|LeaseEnd)\b")
    knowing = {path.name for path in folder.glob("*.py") if named.search(path.read_text())}
    assert knowing == {"backups.py"}


def test_all_statements_are_checked() -> None:
    assert len(STATEMENTS) > 40
    assert sum("FROM data" in text for text in STATEMENTS.values()) > 8
