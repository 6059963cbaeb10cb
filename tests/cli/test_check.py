"""`leasehold check`: verifies a store's files and changes nothing."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from running import Wire, leasehold, message, running
from store_files import killed_with_journal

FAULT = 1
WRITERS = 4
WRITES = 100


def check(path: Path) -> subprocess.CompletedProcess[str]:
    return leasehold("check", str(path))


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a store, by name."""
    return {beside.name: beside.read_bytes() for beside in path.parent.iterdir()}


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The file of a store that was stopped normally."""
    path = tmp_path / "data.json"
    with running(path) as server:
        for number in range(5):
            server.put(f"entry/{number}", str(number))
    return path


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The file of a store that was killed under load, so that much of it is in its journal."""
    path = tmp_path / "data.json"
    with running(path) as server, ExitStack() as stack:
        wires = [stack.enter_context(Wire(server)) for _ in range(WRITERS)]
        for writer, wire in enumerate(wires):
            wire.send(*(message("PUT", f"/kv/{writer}/{number}", body=b"1") for number in range(WRITES)))
        for wire in wires:
            assert {wire.answer().status for _ in range(WRITES)} == {201}
        server.kill()
    return path


def journal(path: Path) -> Path:
    return path.with_name("data.json.journal")


def cut_the_tail(path: Path) -> None:
    """Leave the journal as a power cut in the middle of an append does."""
    content = journal(path).read_bytes().rstrip(b"\0")
    journal(path).write_bytes(content[:-5])


def damage_the_middle(path: Path) -> None:
    content = bytearray(journal(path).read_bytes())
    content[len(content.rstrip(b"\0")) // 2] ^= 1
    journal(path).write_bytes(content)


def refused(path: Path) -> str:
    """The one line of a check that fails and changes nothing."""
    before = contents(path)
    result = check(path)
    assert (result.returncode, result.stdout, contents(path) == before) == (FAULT, "", True)
    line, rest = result.stderr.split("\n", 1)
    assert (line.startswith("leasehold: "), rest) == (True, "")
    return line.removeprefix("leasehold: ")


def test_a_stopped_store_is_good(stopped: Path) -> None:
    result = check(stopped)
    assert (result.returncode, result.stdout.count("\n"), result.stderr) == (0, 1, "")


def test_a_good_store_is_reported_with_its_entries_and_revision(stopped: Path) -> None:
    assert "5 entries, revision 5" in check(stopped).stdout


def test_a_killed_store_is_good_with_its_journal(killed: Path) -> None:
    result = check(killed)
    assert (result.returncode, f"{WRITERS * WRITES} entries" in result.stdout) == (0, True)


def test_the_revision_at_which_data_json_alone_ends_is_reported(tmp_path: Path) -> None:
    killed_with_journal(tmp_path, [("a", b"1")], [("b", b"2")])
    told = "2 entries, revision 2, 2 records in the journal, without it data.json ends at revision 0"
    assert told in check(tmp_path / "data.json").stdout


def test_a_torn_end_is_reported_and_is_not_a_fault(killed: Path) -> None:
    cut_the_tail(killed)
    result = check(killed)
    assert (result.returncode, "torn" in result.stdout) == (0, True)


@pytest.mark.parametrize("damage", [None, cut_the_tail], ids=["killed", "torn"])
def test_a_check_changes_nothing(killed: Path, damage: object) -> None:
    if callable(damage):
        damage(killed)
    before = contents(killed)
    check(killed)
    assert contents(killed) == before


def test_damage_in_the_middle_of_a_journal_is_a_fault(killed: Path) -> None:
    damage_the_middle(killed)
    assert "data.json.journal" in refused(killed)


def test_a_store_that_fails_its_check_does_not_start_and_is_not_changed(killed: Path) -> None:
    damage_the_middle(killed)
    before = contents(killed)
    result = leasehold("serve", "--port=0", f"--store={killed}")
    after = contents(killed)
    assert (result.returncode, "data.json.journal" in result.stderr, after == before) == (FAULT, True, True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 100])
def test_a_file_that_is_not_a_store_is_a_fault(stopped: Path, content: bytes) -> None:
    stopped.write_bytes(content)
    assert "data.json" in refused(stopped)


def test_a_store_in_use_is_not_checked(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    with running(path) as server:
        server.put("a", "1")
        result = check(path)
        assert (result.returncode, result.stderr) == (FAULT, "leasehold: data.json is in use by another process\n")


def test_a_missing_store_is_a_fault(tmp_path: Path) -> None:
    assert refused(tmp_path / "data.json") == f"there is no store at {tmp_path / 'data.json'}"


def test_a_check_without_a_file_is_wrong_usage() -> None:
    assert leasehold("check").returncode == 2
