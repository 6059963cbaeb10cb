"""The rules for every statement in the source, so that the tables can be distributed by namespace (`statement_rules`).

`test_sent_statements` checks what a service really sends.
"""

import re
from pathlib import Path

import pytest
from statement_rules import SCRIPTS, TABLE_NAMES, faults, written_statements

from leasehold.engines.postgres import record_statements
from leasehold.engines.postgres.tables import TABLES

STATEMENTS = written_statements()
BAD = (
    "SELECT key FROM data WHERE key = $1",
    "INSERT INTO head (revision) VALUES ($1)",
    "SELECT 1 FROM data WHERE namespace = $1 UNION ALL SELECT 2 FROM locks WHERE lock_id = $2",
    "SELECT (SELECT revision FROM head WHERE namespace = $1 AND namespace = $1) FROM data WHERE key = $2",
    "SELECT * FROM head JOIN data ON true WHERE head.namespace = $1",
    "DELETE FROM deletions WHERE namespace = $2",
    "DELETE FROM deletions WHERE namespace = ANY($1)",
    "INSERT INTO locks SELECT namespace, key FROM data",
    "(SELECT namespace, key FROM data LIMIT 1) UNION ALL (SELECT lock_id, namespace FROM locks LIMIT 1)",
    "TRUNCATE locks",
    'COPY "data"("key", "revision") FROM STDIN',
    "INSERT INTO writers VALUES ($1) ON CONFLICT DO UPDATE SET written_at = now()",
    "INSERT INTO writers (namespace, writer) SELECT $1, gen_random_uuid()",
    "UPDATE head SET revision = $2 WHERE namespace = $1 RETURNING clock_timestamp()",
    "UPDATE data SET revision = $2, namespace = $3 WHERE namespace = $1",
)
GOOD = (
    "SELECT clock_timestamp()",
    "SELECT * FROM head LEFT JOIN LATERAL (SELECT 1 FROM data WHERE namespace = $1) AS a ON true WHERE namespace = $1",
    "SELECT namespace, revision FROM head WHERE namespace = ANY($1::text[])",
    "(SELECT namespace, key FROM data LIMIT 1) UNION ALL (SELECT namespace, lock_id FROM locks LIMIT 1)",
    'COPY "data"("namespace", "key") FROM STDIN',
)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_can_be_done_by_the_node_that_has_the_namespace(name: str) -> None:
    assert faults(STATEMENTS[name]) == []


@pytest.mark.parametrize("text", BAD)
def test_a_statement_that_breaks_a_rule_is_found(text: str) -> None:
    assert faults(text) != []


@pytest.mark.parametrize("text", GOOD)
def test_a_statement_that_keeps_the_rules_is_not_reported(text: str) -> None:
    assert faults(text) == []


def test_no_step_of_a_write_reads_what_another_step_returns() -> None:
    """Citus would send that to all nodes, and then commit on all of them."""
    writes = [text for name, text in STATEMENTS.items() if name.startswith("write of")]
    assert writes != []
    for text in writes:
        steps = re.findall(r"(\w+) AS (?:MATERIALIZED )?\(\s", text)
        assert {"advanced", "signed"} < set(steps)
        assert [step for step in steps if len(re.findall(rf"\b{step}\b", text)) > 1] == []


def test_every_table_but_that_of_the_migrations_has_a_primary_key_that_begins_with_the_namespace() -> None:
    script = "".join(SCRIPTS)
    assert set(re.findall(r"\bCREATE TABLE (\w+)", script)) == TABLE_NAMES
    assert {"head", "writers", "deletions", "batches", *(table.name for table in TABLES.values())} <= TABLE_NAMES
    keys = re.findall(r"PRIMARY KEY \((\w+)", script)
    assert set(keys) == {"namespace"}
    assert len(keys) + script.count('namespace text COLLATE "C" PRIMARY KEY') >= len(TABLE_NAMES)


def test_only_the_module_for_backups_names_the_kinds() -> None:
    """So a new kind needs its table, its migration and a line in `tables`."""
    folder = Path(record_statements.__file__).parent
    named = re.compile(r"\b(?:ENTRY|LEASE|Entry|Lease|Deletion|LeaseEnd)\b")
    knowing = {path.name for path in folder.glob("*.py") if named.search(path.read_text())}
    assert knowing == {"backups.py"}


def test_all_statements_are_checked() -> None:
    assert len(STATEMENTS) > 60
    assert sum("FROM data" in text for text in STATEMENTS.values()) > 8
