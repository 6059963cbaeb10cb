"""`leasehold export`, `import` and `copy`, with real services."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from commands import Ended, printed, run
from databases import Database, shared_server_url
from leasehold_client import Client
from running import START_SECONDS, Server, clean_environment, running, until
from tokens import SECRET

from leasehold.cli import exit_codes
from leasehold.cli.transfer.exporting import Export

FILES: Final = Path(__file__).parents[1] / "files_of_other_tools"
EXACT: Final = '{"big":18446744073709551615,"e":1e-300,"zero":-0.0,"text":"ü\u2028\\u0001"}'
_numbers = count(1)


def new_store(kind: str, folder: Path) -> str:
    if kind == "memory":
        return "memory:"
    if kind == "file":
        return str(folder / f"{next(_numbers)}.json")
    return Database(shared_server_url(), f"transfers_{os.getpid()}_{next(_numbers)}").create().url


every_engine = pytest.mark.parametrize("kind", ["memory", "file", "postgres"])


@pytest.fixture
def service() -> Iterator[Server]:
    with running("memory:") as server:
        yield server


@pytest.fixture
def other() -> Iterator[Server]:
    with running("memory:") as server:
        yield server


def fill(server: Server) -> None:
    """Values of all kinds, more entries than a page or a transaction has, and some that expire."""
    for key, value in {
        "exact": EXACT,
        "a b/größe": "null",
        "~/%41+?#&": "[]",
        "large": json.dumps("x" * 900_000),
    }.items():
        assert server.put(key, value).status_code == 201
    server.put("expires", "1", params={"ttl": "86400"})
    server.client.put("/kv/logo", content=b"\x89PNG\r\n\0", headers={"Content-Type": "image/png"})
    server.client.put("/kv/bytes", content=bytes(900_000), headers={"Content-Type": "application/octet-stream"})
    for number in range(3):
        operations = [{"op": "put", "key": f"many/{number}/{each}", "value": each / 3} for each in range(100)]
        assert server.request("POST", "/txn", json={"do": operations}).status_code == 200


def wipe(server: Server) -> None:
    assert server.request("DELETE", "/kv?prefix=many/").status_code == 200
    for entry in server.request("GET", "/kv?values=false").json()["entries"]:
        server.delete(entry["key"])
    assert lines_of(server) == []


def lines_of(server: Server, *options: str) -> list[dict[str, Any]]:
    """All that `export` writes."""
    ended = run("export", *options, url=server.url)
    assert ended.code == 0, ended
    return [json.loads(line) for line in ended.output.splitlines()]


class Listed(msgspec.Struct):
    entries: list[msgspec.Raw]


def contents(server: Server) -> dict[str, bytes]:
    """The text of each entry by key, without what a new store decides anew."""
    texts = msgspec.json.decode(server.request("GET", "/kv?base64").content, type=Listed).entries
    return {json.loads(bytes(text))["key"]: bytes(text).partition(b',"revision":')[0] for text in texts}


def told(ended: Ended) -> list[str]:
    return ended.errors.splitlines()


# From a service to a file and back ----------------------------------------------------------------------------


@every_engine
def test_export_then_wipe_then_import_gives_the_same_entries(kind: str, tmp_path: Path) -> None:
    with running(new_store(kind, tmp_path)) as server:
        fill(server)
        server.put("gone", "1", params={"ttl": "0.1"})
        until(lambda: server.get("gone").status_code == 404)
        before, expiry = contents(server), expiry_of(server, "expires")
        file = tmp_path / "entries.ndjson"
        exported = run("export", str(file), url=server.url)
        assert (exported.code, exported.output) == (0, b"")
        assert told(exported)[0].startswith("leasehold export: 307 entries exported; all at revision ")
        wipe(server)
        imported = run("import", str(file), url=server.url)
        assert (imported.code, imported.output) == (0, b"")
        assert told(imported) == ["leasehold import: 307 entries imported"]
        assert contents(server) == before
        assert abs(expiry_of(server, "expires") - expiry) < timedelta(seconds=START_SECONDS)


def expiry_of(server: Server, key: str) -> datetime:
    return datetime.fromisoformat(server.get(key).json()["expires_at"])


@every_engine
def test_an_export_in_pages_has_the_lines_of_an_export_of_one_moment(kind: str, tmp_path: Path) -> None:
    with running(new_store(kind, tmp_path)) as server:
        fill(server)
        one, pages = run("export", url=server.url), run("export", "--pages", url=server.url)
        assert one.output == pages.output
        assert told(one)[0].partition("revision")[2] == told(pages)[0].partition("revision")[2]
        prefixes = ["--prefix=many/1/=m/", "--prefix=many/", "--prefix=lo"]
        some, some_pages = run("export", *prefixes, url=server.url), run("export", "--pages", *prefixes, url=server.url)
        keys = [json.loads(line)["key"] for line in some.output.splitlines()]
        assert len(keys) == 301
        assert {"logo", "m/7", "many/0/7", "many/2/99"} <= set(keys)
        assert sorted(some.output.splitlines()) == sorted(some_pages.output.splitlines())


def test_an_export_of_one_moment_has_all_of_a_transaction_or_nothing(service: Server) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            operations = [{"op": "put", "key": f"pair/{each}", "value": number} for each in range(100)]
            assert service.request("POST", "/txn", json={"do": operations}).status_code == 200

    writer = threading.Thread(target=write)
    writer.start()
    try:
        values = [{line["value"] for line in lines_of(service)} for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    assert all(len(each) <= 1 for each in values)
    assert values[-1]


def test_an_export_in_pages_says_that_the_store_has_changed_meanwhile(service: Server) -> None:
    fill(service)
    with Client(service.url) as db:
        export = Export(db, ())
        lines = export.in_pages()
        next(lines)
        revision = service.put("meanwhile", "1").json()["revision"]
        rest = list(lines)
    assert len(rest) in (306, 307)
    assert export.moment().startswith(f"read from revision {revision - 1} to {revision}: ")


def test_lines_go_through_a_pipe_and_keys_are_renamed(service: Server, other: Server) -> None:
    for key in ("users/ann", "users/ben", "jobs/1"):
        service.put(key, EXACT)
    exported = run("export", "--prefix=users/=people/", url=service.url).output
    ended = run("import", "-", "--prefix=people/=team/", url=other.url, stdin=exported)
    assert told(ended) == ["leasehold import: 2 entries imported"]
    assert list(contents(other)) == ["team/ann", "team/ben"]
    assert other.get("team/ann?raw").text == service.get("users/ann?raw").text


def test_a_file_is_replaced_only_by_a_complete_export(service: Server, tmp_path: Path) -> None:
    file = tmp_path / "entries.ndjson"
    file.write_text("before")
    service.put("a", "1")
    failed = run("export", str(file), "--retry=0", url="http://127.0.0.1:1")
    assert (failed.code, file.read_text()) == (exit_codes.UNAVAILABLE, "before")
    assert run("export", str(file), url=service.url).code == 0
    assert json.loads(file.read_text())["key"] == "a"
    assert list(tmp_path.iterdir()) == [file]


# Repetition and faults ----------------------------------------------------------------------------------------


def test_an_import_can_be_repeated_and_with_if_absent_changes_nothing_that_exists(service: Server) -> None:
    lines = b"".join(b'{"key":"k/%d","value":%d}\n' % (number, number) for number in range(300))
    assert run("import", url=service.url, stdin=lines).code == 0
    first = contents(service)
    assert run("import", url=service.url, stdin=lines).code == 0
    assert contents(service) == first
    service.put("k/7", '"mine"')
    service.delete("k/8")
    dry = run("import", "--if-absent", "--dry-run", url=service.url, stdin=lines)
    assert told(dry) == ["leasehold import: 1 entry would be imported; exist already: 299"]
    revision = service.revision()
    ended = run("import", "--if-absent", url=service.url, stdin=lines)
    assert told(ended) == ["leasehold import: 1 entry imported; exist already: 299"]
    assert service.revision() == revision + 1
    assert contents(service) == first | {"k/7": b'{"key":"k/7","value":"mine"'}


def test_a_dry_run_finds_all_faults_and_writes_nothing(service: Server) -> None:
    revision = service.put("a", "1").json()["revision"]
    lines = b'{"key":"a","value":2}\n{"key":"b//","value":2}\n{"key":"c","value":2}\n{"key":"d"}\n'
    ended = run("import", "--dry-run", url=service.url, stdin=lines)
    assert (ended.code, [line.split(":")[1] for line in told(ended)[:2]]) == (1, [" line 2", " line 4"])
    assert told(ended)[2:] == [
        "leasehold import: 2 entries would be imported; replaced by these: 1; lines not imported: 2"
    ]
    assert service.revision() == revision


def test_faulty_lines_are_named_and_kept_and_all_others_are_imported(service: Server, tmp_path: Path) -> None:
    good = [b'{"key":"k/%d","value":%d}' % (number, number) for number in range(500)]
    bad = {3: b"{", 200: b'{"key":"k/200","value":1,"ttl":-1}', 499: b'{"key":"k/../a","value":1}'}
    lines = [bad.get(number, line) for number, line in enumerate(good, 1)]
    (tmp_path / "entries").write_bytes(b"\n".join(lines))
    rejected = tmp_path / "rejected"
    ended = run("import", str(tmp_path / "entries"), f"--rejected={rejected}", url=service.url)
    assert ended.code == exit_codes.FAILED
    assert [line.split(": ")[1] for line in told(ended)] == [
        "line 3",
        "line 200",
        "line 499",
        "497 entries imported; lines not imported",
    ]
    assert sorted(rejected.read_bytes().splitlines()) == sorted(bad.values())
    assert len(contents(service)) == 497
    again = run("import", str(tmp_path / "entries"), f"--rejected={rejected}", url=service.url)
    assert (again.code, "exists already" in again.errors) == (1, True)


def test_only_the_first_faulty_lines_are_shown(service: Server) -> None:
    ended = run("import", url=service.url, stdin=b"x\n" * 1_000)
    assert len(told(ended)) == 21
    assert told(ended)[-1] == "leasehold import: 0 entries imported; lines not imported: 1,000"


def test_an_import_that_is_cut_off_says_where_to_go_on(tmp_path: Path) -> None:
    lines = b"".join(b'{"key":"k/%d","value":%d}\n' % (number, number) for number in range(1_000))
    with running(tmp_path / "data.json") as server:
        url = server.url
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "leasehold", "import", "--url", url, "--retry=0"],
            stdin=reading,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(lines[: lines.index(b'{"key":"k/300"')])
            pipe.flush()
            until(lambda: server.request("GET", "/kv?count").json()["count"] == 256)
            assert server.terminate() == 0
            pipe.write(lines[lines.index(b'{"key":"k/300"') :])
        _, errors = process.communicate(timeout=START_SECONDS)
        assert process.returncode == exit_codes.UNAVAILABLE
        assert errors.decode().endswith("line 256 and all before are done, --skip 256 continues there\n")
    with running(tmp_path / "data.json") as server:
        assert len(contents(server)) == 256
        assert told(run("import", "--skip=256", url=server.url, stdin=lines)) == [
            "leasehold import: 744 entries imported"
        ]
        assert len(contents(server)) == 1_000


def test_an_import_under_a_lock_writes_only_while_the_lease_is_alive(service: Server) -> None:
    lease = service.lease("imports")
    environment = {"LEASEHOLD_LEASE": lease["lease_id"]}
    line = b'{"key":"a","value":1}\n'
    assert run("import", url=service.url, stdin=line, environment=environment).code == 0
    service.release("imports", lease["lease_id"])
    ended = run("import", url=service.url, stdin=b'{"key":"b","value":1}\n', environment=environment)
    assert ended.code == exit_codes.LEASE_LOST
    assert list(contents(service)) == ["a"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["import", "none.ndjson"], 1, "leasehold: none.ndjson cannot be read: No such file or directory"),
        (["import", "/"], 1, "leasehold: / cannot be read: Is a directory"),
        (["export", "none/a"], 1, "leasehold: none/a cannot be written: No such file or directory"),
        (["import", "--skip=x"], 2, "argument --skip: must be an integer"),
        (["import", "--from=xml"], 2, "argument --from: invalid choice"),
        (["copy", "http://127.0.0.1:1"], 2, "the following arguments are required: TARGET"),
        (["copy", "http://127.0.0.1:1", "http://127.0.0.1:1"], 2, "are the same service"),
        (["copy", "ftp://a", "http://127.0.0.1:1"], 2, "the URL of a service is like"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_line(service: Server, arguments: list[str], code: int, line: str) -> None:
    ended = run(*arguments, url=service.url)
    assert (ended.code, ended.output, ended.errors.count("\n")) == (code, b"", 1)
    assert line in ended.errors


def test_what_was_rejected_is_a_complete_document_also_if_the_import_ends_early(tmp_path: Path) -> None:
    document = b'{"header":{},"kvs":[{"key":"L2E=","value":"MQ=="},{"key":"L2I="},{"key":"Yw=="}]}'
    rejected = tmp_path / "rejected.json"
    ended = run("import", f"--rejected={rejected}", "--retry=0", url="http://127.0.0.1:1", stdin=document)
    assert ended.code == exit_codes.UNAVAILABLE
    assert [each["key"] for each in json.loads(rejected.read_bytes())["kvs"]] == ["L2E=", "L2I="]


def test_an_import_ends_if_what_is_rejected_cannot_be_kept(service: Server, tmp_path: Path) -> None:
    ended = run("import", f"--rejected={tmp_path}/none/a", url=service.url, stdin=b"x\n")
    assert (ended.code, told(ended)[1]) == (
        1,
        f"leasehold: {tmp_path}/none/a cannot be written: No such file or directory",
    )
    assert run("import", f"--rejected={tmp_path}/a", url=service.url, stdin=b"").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_standard_input_that_cannot_be_read_is_one_line(service: Server, tmp_path: Path) -> None:
    unreadable = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    ended = subprocess.run(
        [sys.executable, "-m", "leasehold", "import", f"--url={service.url}"],
        stdin=unreadable,
        capture_output=True,
        check=False,
        env=clean_environment(),
    )
    os.close(unreadable)
    assert (ended.returncode, ended.stderr) == (1, b"leasehold: standard input cannot be read: Bad file descriptor\n")


# Tokens -------------------------------------------------------------------------------------------------------


def token_file(folder: Path, *options: str) -> str:
    path = folder / f"token-{next(_numbers)}"
    made = run("token", f"--auth-secret-file={folder / 'secret'}", "--subject=a", *options)
    path.write_bytes(made.output)
    return str(path)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    (tmp_path / "secret").chmod(0o600)
    with running("memory:", environment={"LEASEHOLD_AUTH_SECRET_FILE": str(tmp_path / "secret")}) as server:
        yield server


def test_a_token_for_some_keys_exports_in_pages(guarded: Server, other: Server, tmp_path: Path) -> None:
    writer = token_file(tmp_path, "--permission=write")
    lines = b'{"key":"mine/1","value":1}\n{"key":"other/1","value":1}\n'
    assert run("import", f"--token-file={writer}", url=guarded.url, stdin=lines).code == 0
    mine = token_file(tmp_path, "--permission=read", "--prefix=mine/")
    whole = run("export", f"--token-file={mine}", url=guarded.url)
    assert (whole.code, whole.output) == (exit_codes.ACCESS_DENIED, b"")
    assert "--pages" in whole.errors
    pages = run("export", "--pages", f"--token-file={mine}", url=guarded.url)
    assert [json.loads(line)["key"] for line in pages.output.splitlines()] == ["mine/1"]
    copied = run("copy", "--pages", guarded.url, other.url, f"--source-token-file={mine}")
    assert (copied.code, list(contents(other))) == (0, ["mine/1"])
    refused = run("copy", other.url, guarded.url, f"--target-token-file={mine}")
    assert refused.code == exit_codes.ACCESS_DENIED
    refused = run("copy", guarded.url, other.url)
    assert (refused.code, "the source: " in refused.errors) == (exit_codes.ACCESS_DENIED, True)


# Other sources ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["consul_kv_export.json", "consul_1.8.7_kv_export.json", "etcdctl_get.json"])
def test_files_of_consul_and_etcd_are_imported(service: Server, name: str) -> None:
    ended = run("import", str(FILES / name), url=service.url)
    assert ended.code == 0, ended
    assert service.get("config/database?raw").json() == {"host": "db.example.com", "ratio": 1.1, "tags": ["a", "b"]}
    assert service.get("config/port?raw").text.strip() == "5432"
    assert service.get("config/version?raw").text.strip() == '"1.10"'
    assert service.client.get("/kv/logo").content == b"\x89PNG\r\n\x1a\n\0"
    texts = run("import", str(FILES / name), "--values=text", "--prefix=config/=texts/", url=service.url)
    assert texts.code == 0, texts
    assert service.get("texts/port?raw").text.strip() == '"5432"'


def test_a_file_that_a_real_consul_has_written_is_imported_whole(service: Server) -> None:
    """It has more keys than the other one: an entry that a session had locked, and a key beyond ASCII."""
    ended = run("import", str(FILES / "consul_1.8.7_kv_export.json"), url=service.url)
    assert told(ended) == ["leasehold import: 11 entries imported; folders left out: 1; without their flags: 1"]
    assert (service.get("held?raw").text.strip(), service.get("ünï/ключ?raw").text.strip()) == ('"held"', '"v"')


def test_what_is_rejected_of_a_document_is_a_document_of_the_same_format(service: Server, tmp_path: Path) -> None:
    document = b'{"header":{},"kvs":[{"key":"L2E=","value":"MQ=="},{"key":"Yg=="},{"key":"L2M=","value":"Mg=="}]}'
    rejected = tmp_path / "rejected.json"
    ended = run("import", f"--rejected={rejected}", url=service.url, stdin=document)
    assert (ended.code, list(contents(service))) == (1, ["b"])
    assert "leasehold import: item 1: the key '/a' is not valid: " in ended.errors
    assert "--prefix /= removes the slash" in ended.errors
    assert run("import", str(rejected), "--prefix=/=", url=service.url).code == 0
    assert list(contents(service)) == ["a", "b", "c"]


def test_some_entries_of_a_backup_are_brought_back_into_a_running_service(service: Server, tmp_path: Path) -> None:
    fill(service)
    before = contents(service)
    backup = str(tmp_path / "backup.json")
    printed("backup", backup, f"--url={service.url}", url=service.url)
    service.request("DELETE", "/kv?prefix=many/")
    service.put("exact", "1")
    assert run("import", backup, "--prefix=many/", url=service.url).code == 0
    assert contents(service) == before | {"exact": b'{"key":"exact","value":1'}
    cut = tmp_path / "cut.json"
    cut.write_bytes(Path(backup).read_bytes()[:-50])
    ended = run("import", str(cut), url=service.url)
    assert (ended.code, "is cut off" in ended.errors) == (1, True)


# From service to service --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [[], ["--pages"]], ids=str)
@every_engine
def test_a_copy_has_the_same_entries(kind: str, pages: list[str], other: Server, tmp_path: Path) -> None:
    with running(new_store(kind, tmp_path)) as server:
        fill(server)
        ended = run("copy", *pages, server.url, other.url)
        assert ended.code == 0, ended
        assert told(ended) == [
            f"leasehold copy: 307 entries copied; all at revision {server.revision()}",
        ]
        assert contents(other) == contents(server)
        renamed = run("copy", "--prefix=exact=copy/exact", "--if-absent", *pages, server.url, server.url)
        assert renamed.code == 0, renamed
        assert server.get("copy/exact?raw").text == server.get("exact?raw").text


def test_a_value_that_the_target_does_not_take_is_named_and_all_others_are_copied(
    service: Server, other: Server
) -> None:
    service.put("small", "1")
    state = b'{"version":4,"text":"%b"}' % (b"x" * 2_000_000)
    assert service.client.post("/terraform/large", content=state).status_code == 201
    ended = run("copy", service.url, other.url)
    assert ended.code == exit_codes.FAILED
    assert "the service refuses 'terraform/large': the body is larger than 1048576 bytes" in ended.errors
    assert list(contents(other)) == ["small"]
