"""Receipts in `data.json` and in the journal, and the memory that they take."""

import base64
import tracemalloc
from pathlib import Path

import pytest
from driving import INCARNATION, stored_state
from running import leasehold
from store_files import DATA, TIME, document, line, refusal

from leasehold.engines.base import by_kind
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.documents import read_document, read_snapshot
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.memory.state import State
from leasehold.engines.state import StoredState, snapshot_of
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.idempotency import keyed
from leasehold.limits import MIB
from leasehold.model import RECEIPT, DeletedEntries, Memo, Operation, Put, Receipt, encode_memo
from leasehold.rules import evaluate

MEMO = encode_memo(Memo(b"12345678", DeletedEntries(3, 7)))
MEMO_TEXT = base64.b64encode(MEMO).decode()
EXPIRES_AT = 1_769_860_800_000_001
LINES = tuple(
    f'{{"request":"{name}","memo":"{MEMO_TEXT}","revision":{revision},"expires_at":"{TIME}"}}'
    for name, revision in (("-_z", 7), ("a", 1))
)
WITH_RECEIPTS = document(9, line("a", "1", 1), compacted=9).replace(
    b"\n]}\n", f'\n], "receipts": [\n{LINES[0]},\n{LINES[1]}\n]}}\n'.encode()
)
RECEIPTS = {"-_z": Receipt("-_z", MEMO, 7, EXPIRES_AT), "a": Receipt("a", MEMO, 1, EXPIRES_AT)}


def read(folder: Path, content: bytes) -> StoredState:
    (folder / DATA).write_bytes(content)
    return read_snapshot(OsDisk(), folder / DATA, 0)


def test_receipts_are_lines_of_data_json(tmp_path: Path) -> None:
    state = read(tmp_path, WITH_RECEIPTS)
    assert state.of(RECEIPT).by_name == RECEIPTS
    assert b"".join(snapshot_text(snapshot_of(state))) == WITH_RECEIPTS


def test_receipts_in_another_layout_are_read() -> None:
    assert read_document(WITH_RECEIPTS.replace(b'{"', b'{ "'), DATA, 0).of(RECEIPT).by_name == RECEIPTS


@pytest.mark.parametrize("bad", ["", "wQ==", "ksQIMTIzNDU2Nzg=", "kwA=", "!"], ids=str)
def test_a_memo_that_cannot_be_read_is_refused_with_its_line(bad: str, tmp_path: Path) -> None:
    content = WITH_RECEIPTS.replace(f'"a","memo":"{MEMO_TEXT}"'.encode(), f'"a","memo":"{bad}"'.encode())
    (tmp_path / DATA).write_bytes(content)
    assert 'line 5: receipt "a": ' in refusal(tmp_path)


def test_check_counts_receipts(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(WITH_RECEIPTS)
    done = leasehold("check", str(tmp_path / DATA))
    assert done.returncode == 0
    assert "is good: 1 entries, 2 receipts, revision 9" in done.stdout


# Memory -------------------------------------------------------------------------------------------------------

RECEIPTS_IN_MEMORY = 25_000
"""The dictionary of the receipts has just grown, so that it has the most unused places."""
BATCH = 125


def batch_of_keyed_puts(number: int) -> list[Operation]:
    """Writes to few keys, each with an idempotency key of its own."""
    operations: list[Operation] = []
    for each in range(BATCH):
        request = Request("POST", b"/kv/orders/1234567", Headers(), body=b"%d" % each)
        put = Put(f"orders/{1_234_000 + each}", b"%d" % each)
        operations.append(keyed(request, b"%d.%d" % (number, each), put, 600.0))
    return operations


def test_a_receipt_takes_less_than_400_bytes_of_memory() -> None:
    state = State(stored_state(incarnation=INCARNATION))

    def commit(number: int) -> None:
        now = 1_769_860_800_000_000 + number
        _, changes = evaluate(batch_of_keyed_puts(number), state, state.revision, now, max_value_bytes=MIB)
        state.publish(by_kind(changes), changes[-1].revision)

    for number in range(2):  # the entries
        commit(number)
    # The history of the entries grows by two small objects for each write, with and without a key.
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2, 2 + RECEIPTS_IN_MEMORY // BATCH):
        commit(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(state.records(RECEIPT)) == RECEIPTS_IN_MEMORY + 2 * BATCH
    assert (after - before) / RECEIPTS_IN_MEMORY < 400
