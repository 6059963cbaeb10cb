"""Backups of stores with several namespaces."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest
from driving import FrozenClock
from harness.killed_before_a_step import KILLED_BEFORE_A_STEP
from moving import STORES
from running import leasehold
from several_namespaces import NAMES, filled_file, observed

from leasehold.engines import shown_url
from leasehold.engines.backups import read_backup
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.recovery import inspect
from leasehold.engines.state import Description
from leasehold.errors import ServiceError
from leasehold.model import Quota
from leasehold.namespaces import DEFAULT_NAMESPACE

every_store = pytest.mark.parametrize("kind", STORES)
EXPECTED: Mapping[str, tuple[int, Mapping[str, int]]] = {
    DEFAULT_NAMESPACE: (4, {"a": 1}),
    "empty": (0, {}),
    "team-a": (4, {"a": 1}),
    "team-c": (4, {"z": 4}),
}
"""The heads, and the revisions of the entries."""


def filled(folder: Path) -> str:
    (folder / "source").mkdir()
    return filled_file(str(folder / "source" / "data.json"))


def backed_up(folder: Path, store: str, *options: str) -> Path:
    path = folder / "backup.json"
    result = leasehold("backup", str(path), "--store", store, *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    return path


def restored(path: Path, store: str, *options: str) -> str:
    result = leasehold("restore", str(path), "--store", store, *options)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def refused(*words: str) -> str:
    result = leasehold(*words)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result
    return result.stderr


def entries_in(store: str) -> Mapping[str, tuple[int, Mapping[str, int]]]:
    """The heads, and the revisions of the entries. Nothing else may be there."""
    found: dict[str, tuple[int, Mapping[str, int]]] = {}
    for name, each in observed(store).items():
        assert (each.leases, each.receipts) == ([], [])
        found[name] = (each.revision, {entry.key: entry.revision for entry in each.entries})
    return found


def with_heads_raised(by: int) -> Mapping[str, tuple[int, Mapping[str, int]]]:
    return {name: (revision + by, entries) for name, (revision, entries) in EXPECTED.items()}


def descriptions_of(store: str) -> Mapping[str, tuple[Quota, int]]:
    found = {name: each.description for name, each in observed(store).items()}
    return {name: (description.quota, description.created_at) for name, description in found.items()}


@every_store
def test_a_backup_has_all_namespaces_and_a_restore_puts_all_of_them_back(kind: str, tmp_path: Path) -> None:
    source, target = filled(tmp_path), STORES[kind](tmp_path)
    path = backed_up(tmp_path, source)
    told = restored(path, target, "--advance", "10")
    assert told == f"{shown_url(target)} holds 3 entries of {path} in 4 namespaces, default at revision 14\n"
    assert entries_in(target) == with_heads_raised(10)
    assert descriptions_of(target) == descriptions_of(source)


def test_a_backup_of_several_namespaces_has_one_line_per_entry(tmp_path: Path) -> None:
    text = backed_up(tmp_path, filled(tmp_path)).read_text()
    document = json.loads(text)
    assert [each["namespace"] for each in document["namespaces"]] == sorted([*NAMES, "gone"])
    [gone] = [each for each in document["namespaces"] if each["namespace"] == "gone"]
    assert gone == {"namespace": "gone", "deleted_at_revision": 3}
    [team] = [each for each in document["namespaces"] if each["namespace"] == "team-c"]
    assert (team["max_bytes"], team["data"]["entries"][0]["key"]) == (5_000, "z")
    assert [json.loads(line)["key"] for line in text.split("\n") if line.startswith('{"key"')] == ["a", "a", "z"]


def test_a_store_that_has_only_default_is_backed_up_as_before(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"leasehold": 1, "incarnation": "5f3a9c", "revision": 9, "entries": [\n]}\n')
    text = backed_up(tmp_path, str(tmp_path / "data.json")).read_text()
    assert text.startswith('{"leasehold": 1, "incarnation": "5f3a9c", "revision": 9, "entries": [\n], "sha256": "')
    assert backed_up(tmp_path, str(tmp_path / "data.json"), "--namespace", "default").read_text() == text


@every_store
def test_one_namespace_of_a_backup_of_several_is_restored(kind: str, tmp_path: Path) -> None:
    target = STORES[kind](tmp_path)
    path = backed_up(tmp_path, filled(tmp_path))
    restored(path, target, "--namespace", "team-a", "--advance", "10")
    assert entries_in(target) == {DEFAULT_NAMESPACE: (0, {}), "team-a": (14, {"a": 1})}
    assert "has no namespace gone" in refused("restore", str(path), "--store", target, "--namespace", "gone")


@every_store
def test_a_restore_of_all_namespaces_replaces_a_store_and_keeps_what_it_held(kind: str, tmp_path: Path) -> None:
    """A namespace that the backup does not have is deleted. No head goes back."""
    target, other = STORES[kind](tmp_path), STORES[kind](tmp_path)
    path = backed_up(tmp_path, filled(tmp_path))
    restored(path, target, "--advance", "100")
    one = tmp_path / "one.json"
    path.replace(one)
    single = backed_up(tmp_path, target, "--namespace", "team-a")
    restored(single, target, "--namespace", "extra", "--advance", "0")
    assert "is not empty: with --replace" in refused("restore", str(one), "--store", target)
    held = entries_in(target)
    told = restored(one, target, "--advance", "10", "--replace")
    kept = Path(told.splitlines()[1].removeprefix("what it held before is in "))
    assert entries_in(target) == with_heads_raised(110)
    restored(kept, other, "--advance", "0")
    assert entries_in(other) == held
    again = read_backup(OsDisk(), backed_up(tmp_path, target), FrozenClock().now)
    assert again.namespaces["extra"] == Description(deleted_at_revision=105)
    assert again.namespaces["gone"] == Description(deleted_at_revision=113)


def test_a_backup_of_several_namespaces_is_refused_if_it_is_cut_or_changed(tmp_path: Path) -> None:
    path = backed_up(tmp_path, filled(tmp_path))
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ServiceError):
            read_backup(OsDisk(), path, 0)
    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ServiceError):
            read_backup(OsDisk(), path, 0)
    path.write_bytes(whole)
    assert read_backup(OsDisk(), path, 0).entries == 3


def test_an_edited_backup_of_several_namespaces_is_taken_without_its_checksum(tmp_path: Path) -> None:
    path = backed_up(tmp_path, filled(tmp_path))
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document, indent=2))
    with pytest.raises(ServiceError) as caught:
        read_backup(OsDisk(), path, 0)
    assert "remove the member sha256" in caught.value.message
    del document["sha256"]
    path.write_text(json.dumps(document, indent=2))
    backup = read_backup(OsDisk(), path, 0)
    assert (backup.entries, backup.states["team-a"].revision) == (3, 4)
    document["namespaces"][0]["data"]["entries"] = [{"key": 1}]
    path.write_text(json.dumps(document, indent=2))
    with pytest.raises(ServiceError) as caught:
        read_backup(OsDisk(), path, 0)
    assert "nothing was restored: backup.json cannot be used: line " in caught.value.message
    del document["namespaces"][0]
    for indent in (2, None):
        path.write_text(json.dumps(document, indent=indent))
        with pytest.raises(ServiceError) as caught:
            read_backup(OsDisk(), path, 0)
        assert "it has no namespace default" in caught.value.message
    lines = ['{"leasehold_backup": 1, "namespaces": [', '{"namespace":"team-b","deleted_at_revision":12}', "]}", ""]
    path.write_text("\n".join(lines))
    with pytest.raises(ServiceError) as caught:
        read_backup(OsDisk(), path, 0)
    assert "it has no namespace default" in caught.value.message


def test_an_import_of_a_backup_of_several_namespaces_says_what_to_do(tmp_path: Path) -> None:
    path = backed_up(tmp_path, filled(tmp_path))
    told = refused("import", str(path), "--url", "http://127.0.0.1:1")
    assert "is a backup of several namespaces: make one of a single namespace, with --namespace" in told


# Killed restores ----------------------------------------------------------------------------------------------

KILLED_AT = f"""{KILLED_BEFORE_A_STEP}
import asyncio, sys
from pathlib import Path
from leasehold.engines import restore_all
from leasehold.engines import shown_url
from leasehold.engines.backups import read_backup, store_backup_text

async def keep(store):
    kept = Path(sys.argv[3])
    kept.write_bytes(b"".join([chunk async for chunk in store_backup_text(store)]))
    return kept

backup = read_backup(disk.OsDisk(), Path(sys.argv[1]), 0)
disk.OsDisk = KilledDisk
for line in sys.stdin:
    steps = int(line)
    restoring = os.fork()
    if restoring == 0:
        asyncio.run(restore_all(sys.argv[2], backup, advance=100, keep=keep, now=0))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(restoring, 0)[1]), flush=True)
"""
"""As in test_backups, for all namespaces of a store."""


def test_a_restore_of_all_namespaces_that_is_killed_at_any_step_has_replaced_all_or_none(tmp_path: Path) -> None:
    target = str(tmp_path / "data.json")
    path = backed_up(tmp_path, filled(tmp_path))
    restored(path, target, "--advance", "0")
    heads = {name: revision for name, (revision, _) in EXPECTED.items()}
    command = [sys.executable, "-c", KILLED_AT, str(path), target, str(tmp_path / "kept.json")]
    completed = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as restores:
        assert restores.stdin is not None
        assert restores.stdout is not None
        for step in count():
            restores.stdin.write(f"{step}\n")
            ended = int(restores.stdout.readline())
            report = inspect(Path(target), OsDisk())
            found = {DEFAULT_NAMESPACE: report.revision}
            found |= {name: state.revision for name, state in report.namespaces.states.items()}
            raised = {name: revision + 100 for name, revision in heads.items()}
            assert found in ((heads, raised) if ended else (raised,)), step
            completed += found == raised
            heads = found
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
        restores.stdin.close()
    assert step > 20
    assert completed > 1
    assert {name: revision for name, (revision, _) in entries_in(target).items()} == heads
