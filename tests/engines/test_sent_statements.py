"""The statements that services and commands really send keep the rules (`statement_rules`).

A PostgreSQL writes all of them into its log while every part of the service is used. This also finds statements that
are no constants of a module. A constant that is not in the log makes a test fail, so that `use_everything` stays
complete.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from databases import Database, PostgresServer, run
from harness.api_model import follow_the_model
from harness.postgres_faults import survive_database_faults
from no_citus import functions_of_citus
from running import Server, Wire, leasehold, message, running, until
from statement_rules import constants, faults

from leasehold.engines.postgres import head_statements
from leasehold.engines.postgres.distribution import distribute
from leasehold.limits import MAX_STATE_VERSIONS

LOGGED = ("log_statement=all", "log_parameter_max_length=0", "log_line_prefix=%a|")
IN_THE_LOG = re.compile(r"^leasehold\|LOG: +(?:execute [^:]+|statement): (.*(?:\n\t.*)*)", re.MULTILINE)
LARGE = 40_000
"""Characters. Of so large a value, only the part that changes is sent."""


# Everything is used -------------------------------------------------------------------------------------------


def use_everything(database_server: PostgresServer, folder: Path) -> None:
    database = Database(database_server.url, "used").create()
    assert follow_the_model(database.url, 1, sequences=3).violations == []
    with running(database.url) as server, running(database.url) as other:
        use_requests(server, other)
        commit_at_both(server, other, database_server)
        lose_batches(server, database)
        let_expire(server, database)
        refuse_all_writes(server, database)
        go_back(server, database)
        use_namespaces(server, database)
    database.execute("DELETE FROM head WHERE namespace <> 'default'")  # else the store could not be moved
    use_commands(database_server, database, folder)
    lose_answers(database_server)
    distributed = Database(database_server.url, "distributed").create()
    with functions_of_citus(distributed):
        run(distribute(distributed.url, now=1))


def lose_answers(database_server: PostgresServer) -> None:
    """Cut connections until the answer of a COMMIT was lost that had been done."""
    for seed in range(1, 20):
        assert survive_database_faults(database_server, seed, ["cut"] * 5).violations == []
        if head_statements.TOUCH_HEAD in database_server.log():
            return
    pytest.fail("no answer of a COMMIT was lost")


def answered(response: httpx.Response, *statuses: int) -> None:
    assert response.status_code in (statuses or (200, 201)), response.text


def use_requests(server: Server, other: Server) -> None:
    """What the model of the API does not ask for."""
    answered(server.put("large", json.dumps({"filler": "x" * LARGE, "part": 1})))
    answered(server.put("large?path=/part", "2"))
    answered(server.patch("large", '{"part": null}'))
    answered(server.request("PUT", "/kv/bytes", content=b"\0\1", headers={"Content-Type": "image/png"}))
    for query in ("limit=2", "limit=2&reverse", "count", "count&reverse", "key=bytes&key=large"):
        answered(server.request("GET", f"/kv?{query}"))
    once = {"Idempotency-Key": "once"}
    for each in (server, other):
        answered(each.put("once", "1", headers=once), 201)
    changes = [{"op": "put", "key": "jobs/1", "value": 1}, {"op": "delete", "key": "bytes"}, {"op": "get", "key": "a"}]
    answered(server.request("POST", "/txn", json={"do": changes}))
    answered(server.request("POST", "/terraform/a", json={"version": 4, "serial": 1, "lineage": "a"}))
    answered(server.request("DELETE", "/terraform/a"))
    lease = server.lease("lock", ttl=600)
    answered(server.renew("lock", lease["lease_id"]))
    answered(server.put("fenced", "1", headers={"If-Lease": lease["lease_id"]}))
    with Wire(other) as waiting:
        waiting.send(message("POST", "/locks/lock", body=b'{"wait": 50, "ttl": 1}'))
        until(lambda: other.waiters("lock") == 1)
        answered(server.release("lock", lease["lease_id"]))
        assert waiting.answer(to="POST").status == 201
    answered(server.request("GET", "/locks"))
    answered(server.request("DELETE", "/kv?prefix=jobs/"))
    answered(server.request("GET", "/backup"))


def commit_at_both(server: Server, other: Server, database_server: PostgresServer) -> None:
    """Commit at both servers in turn until a notification was sent without a commit."""

    def is_sent() -> bool:
        for each in (server, other) * 5:
            answered(each.put("both", "1"))
        return head_statements.TELL_COMMITTED in database_server.log()

    until(is_sent)


def read_changes(server: Server, after: int) -> None:
    """Watch until all changes after a revision were sent."""
    mark = server.put("mark", "1").json()["revision"]
    with server.client.stream("GET", f"/watch?since={after}&locks", headers={"Accept": "application/x-ndjson"}) as sent:
        for line in sent.iter_lines():
            if json.loads(line).get("id", 0) >= mark:
                return


def lose_batches(server: Server, database: Database) -> None:
    """Read changes from `batches`, and then from the other tables, as after a server of version 0.1.0."""
    for number in range(5):
        answered(server.put(f"changed/{number}", "1"))
    answered(server.delete("changed/0"))
    after = server.revision() - 4
    read_changes(server, after)
    database.execute("DELETE FROM batches")
    read_changes(server, after)


def let_expire(server: Server, database: Database) -> None:
    answered(server.put("brief", "1", params={"ttl": 0.1}))
    until(lambda: database.fetch("SELECT FROM data WHERE key = 'brief'") == [])


def refuse_all_writes(server: Server, database: Database) -> None:
    """The service tries empty commits until one is done."""
    database.execute("ALTER TABLE writers RENAME TO hidden")
    until(lambda: server.put("refused", "1").status_code == 503)
    until(lambda: server.client.get("/health").status_code == 503)
    database.execute("ALTER TABLE hidden RENAME TO writers")
    until(lambda: server.client.get("/health").status_code == 200)


def go_back(server: Server, database: Database) -> None:
    """The database has an older state, as after the restoration of a backup."""
    before = server.revision()
    database.execute("UPDATE head SET revision = revision - 5")
    until(lambda: server.revision() > before)


def use_namespaces(server: Server, database: Database) -> None:
    """Also after a server of an earlier version, which does not count what a namespace holds."""
    answered(server.request("PUT", "/ns/n", json={"max_entries": 50}))
    answered(server.request("PUT", "/ns/n/kv/a", content=b"1"))
    database.execute("UPDATE head SET summed_to = NULL")
    answered(server.request("PUT", "/ns/n/kv/a", content=b"2"))
    database.execute("UPDATE head SET summed_to = NULL")
    answered(server.request("GET", "/ns/n"))
    answered(server.request("GET", "/ns"))
    for serial in range(MAX_STATE_VERSIONS + 1):  # the oldest version is removed without being read
        answered(server.request("POST", "/ns/n/terraform/a", json={"version": 4, "serial": serial, "lineage": "a"}))
    answered(server.request("DELETE", "/ns/n"))
    answered(server.request("PUT", "/ns/n"))
    answered(server.request("DELETE", "/ns/n"))


def use_commands(database_server: PostgresServer, database: Database, folder: Path) -> None:
    empty, copy = (Database(database_server.url, name).create() for name in ("restored", "moved"))
    saved, moved = str(folder / "saved"), str(folder / "data.json")
    for command in (
        ("backup", "--store", database.url, saved),
        ("restore", "--store", empty.url, saved),
        ("restore", "--store", empty.url, "--replace", saved),
        ("advance", "--store", empty.url),
        ("move", database.url, moved),
        ("move", moved, copy.url),
    ):
        done = leasehold(*command)
        assert done.returncode == 0, done.stderr


# The log ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """All statements that were sent, each once."""
    with PostgresServer(*LOGGED, fsync=True) as database_server:
        use_everything(database_server, tmp_path_factory.mktemp("files"))
        yield list(dict.fromkeys(text.replace("\n\t", "\n") for text in IN_THE_LOG.findall(database_server.log())))


def test_every_statement_that_is_sent_keeps_the_rules(sent: list[str]) -> None:
    assert [(text, found) for text in sent if (found := faults(text))] == []


def test_every_constant_statement_is_sent(sent: list[str]) -> None:
    texts = {text.strip() for text in sent}
    assert [name for name, text in constants().items() if text.strip() not in texts] == []
