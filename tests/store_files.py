"""The files of a store for tests: their names, their text, and what a start says of them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from driving import INCARNATION, file_driver

from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.recovery import inspect
from leasehold.errors import ServiceError

DATA, JOURNAL, OLD_JOURNAL, LOCK = "data.json", "data.json.journal", "data.json.journal.old", "data.json.lock"
RESERVE = "data.json.reserve"
TIME = "2026-01-31T12:00:00.000001Z"
LATER = "2026-01-31T12:00:01.500000Z"


def line(key: str, value: str, revision: int) -> str:
    return f'{{"key":"{key}","value":{value},"revision":{revision},"created_at":"{TIME}","updated_at":"{TIME}"}}'


def lease_line(lock: str, token: int) -> str:
    facts = (
        f'"token":{token},"revision":{token},"acquired_at":"{TIME}","expires_at":"{LATER}","ttl_microseconds":1499999'
    )
    return f'{{"lock":"{lock}","lease_id":"id-of-{lock}",{facts},"holder":"alice","owner":{{"n":1}}}}'


def document(
    revision: int, *lines: str, leases: Sequence[str] = (), compacted: int = 0, removals: Sequence[str] = ()
) -> bytes:
    """The text of a store that knows all changes after `compacted`."""
    text = f'{{"leasehold": 1, "incarnation": "{INCARNATION}", "revision": {revision}, "entries": ['
    text += "".join(f"{',' if number else ''}\n{each}" for number, each in enumerate(lines))
    if leases:
        text += '\n], "leases": [\n' + ",\n".join(leases)
    text += "\n]"
    if compacted < revision:
        text += f', "compacted_revision": {compacted}'
    if removals:
        text += ', "removals": [\n' + ",\n".join(removals) + "\n]"
    return f"{text}}}\n".encode()


def removal_line(name: str, revision: int, kind: str = "entry") -> str:
    return f'{{"kind":"{kind}","name":"{name}","revision":{revision}}}'


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder: Path) -> str:
    """Why a start is refused; it must have changed nothing but the lock, and `check` must say the same."""
    before = files(folder)
    with pytest.raises(ServiceError) as caught, file_driver(folder):
        pass
    assert {**files(folder), LOCK: b""} == {**before, LOCK: b""}
    assert caught.value.code == "unavailable"
    assert "\n" not in caught.value.message
    with pytest.raises(ServiceError) as checked:
        inspect(folder / DATA, OsDisk())
    assert checked.value.message == caught.value.message
    return caught.value.message


def killed_with_journal(folder: Path, *batches: list[tuple[str, bytes | None]]) -> None:
    driver = file_driver(folder).__enter__()
    for batch in batches:
        driver.commit(*batch)
    driver.kill()
