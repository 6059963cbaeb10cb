"""Idempotency keys: a request is done once, whatever it is; what a receipt keeps, and when it goes."""

from typing import Any, Final

import msgspec
import pytest
from driving import stored_state
from msgspec.structs import replace

from leasehold.engines.base import by_kind
from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.limits import MAX_BATCH_WORK_BYTES, MIB
from leasehold.model import (
    ENTRY,
    RECEIPT,
    Acquire,
    Binary,
    Change,
    Committed,
    Condition,
    Content,
    Delete,
    DeletedEntries,
    DeleteEach,
    Entry,
    Expired,
    Forget,
    Held,
    Increment,
    JsonPatch,
    Keyed,
    Lease,
    Leased,
    MergePatch,
    Operation,
    Outcome,
    PatchStep,
    Put,
    Read,
    Receipt,
    Release,
    Renew,
    Replayed,
    RequestedOperation,
    RevisionCheck,
    Transaction,
    Unchanged,
    Written,
    decode_memo,
)
from leasehold.rules import evaluate, lookups_of, names_of, overlay, touched

HEAD: Final = 100
NOW: Final = 1_000_000_000
TTL: Final = 600
FINGERPRINT: Final = b"12345678"
ALICE: Final = Entry("alice", b'{"n":1,"list":[1]}', 41, 10, 20)
BYTES: Final = Binary("image/png", Content(b"\x00\xff\xc0\xf5R"))
IMAGE: Final = Entry("image", BYTES, 42, 10, 20)
LEASE: Final = Lease("held", "id-of-held", 50, 50, 1, NOW + 10_000, 10_000, "ann", b'{"job":7}')


class Service:
    """The rules on a state in memory. `now` is its clock."""

    def __init__(self) -> None:
        self.state = State(stored_state({"alice": ALICE, "image": IMAGE}, HEAD, leases={"held": LEASE}))
        self.now = NOW

    def decide(self, *operations: Operation) -> list[Outcome | ServiceError]:
        """Commit a batch."""
        outcomes, changes = self.decided(*operations)
        if changes:
            self.state.publish(by_kind(changes), changes[-1].revision)
        return outcomes

    def decided(self, *operations: Operation) -> tuple[list[Outcome | ServiceError], list[Change]]:
        return evaluate(operations, self.state, self.state.revision, self.now, max_value_bytes=MIB)

    def outcome(self, operation: Operation) -> Outcome:
        [outcome] = self.decide(operation)
        assert not isinstance(outcome, ServiceError), outcome
        return outcome

    @property
    def receipts(self) -> list[str]:
        return sorted(self.state.records(RECEIPT))


@pytest.fixture
def service() -> Service:
    return Service()


def keyed(operation: RequestedOperation, *, receipt: str = "r", fingerprint: bytes = FINGERPRINT) -> Keyed:
    return Keyed(operation, receipt, fingerprint, TTL)


def code_of(outcome: Outcome | ServiceError) -> str:
    assert isinstance(outcome, ServiceError), outcome
    return outcome.code


# Done once ----------------------------------------------------------------------------------------------------

CHANGES: Final[dict[str, RequestedOperation]] = {
    "put": Put("bob", b'{"a":[1]}'),
    "put in place": Put("alice", b"2"),
    "put bytes": Put("bob", BYTES),
    "put bytes in place": Put("alice", BYTES, ttl=1_000),
    "put in place of bytes": Put("image", b"1"),
    "put a part": Put("alice", b'{"deep":true}', path=("part",)),
    "put with a condition": Put("bob", b"1", condition=Condition(if_none_match="*")),
    "put with a ttl": Put("bob", b"1", ttl=1_000),
    "append": Put("alice", b"2", path=("list", "-")),
    "increment": Increment("alice", 5, path=("n",)),
    "increment of nothing": Increment("counter", 5),
    "merge patch": MergePatch("alice", {"m": 1}),
    "json patch": JsonPatch("alice", (PatchStep("add", ("list", "-"), 2),)),
    "delete": Delete("alice"),
    "delete a part": Delete("alice", path=("n",)),
    "delete each": DeleteEach(("alice", "absent"), 3, 90),
    "acquire": Acquire("free", "id-of-free", 5_000, b'"me"', "bob"),
    "renew": Renew("held", "id-of-held", 20_000),
    "release": Release("held", "id-of-held"),
    "transaction": Transaction(
        (RevisionCheck("alice", 41),),
        (
            Put("alice", b"1"),
            Put("bob", b"2", path=("x",)),
            Increment("counter", 7),
            Read("alice"),
            Read("absent"),
            Put("carl", b"[]"),
        ),
    ),
    "transaction with bytes": Transaction((), (Read("image"), Put("bob", BYTES), Read("bob"), Put("alice", BYTES))),
}


@pytest.mark.parametrize("operation", CHANGES.values(), ids=CHANGES)
def test_a_repeated_request_changes_nothing_and_gets_the_same_outcome(
    operation: RequestedOperation, service: Service
) -> None:
    plain = Service().outcome(operation)
    first = service.outcome(keyed(operation))
    assert first == plain
    head, receipt = service.state.revision, service.state.records(RECEIPT)["r"]
    assert (receipt.revision, receipt.expires_at) == (head, NOW + TTL)
    service.now += TTL - 1
    again = service.outcome(keyed(operation))
    assert isinstance(again, Replayed)
    assert shown(again.outcome, operation) == shown(first, operation)
    assert service.decided(keyed(operation))[1] == []
    assert service.state.revision == head


def shown(outcome: Outcome, operation: RequestedOperation) -> Outcome:
    """The outcome without the values that no response shows. It shows the size and the media type of bytes."""
    if isinstance(outcome, Committed):
        results = (
            without_value(each) if isinstance(each, Written) and each.entry.value else each for each in outcome.results
        )
        return replace(outcome, results=tuple(results))
    if isinstance(outcome, Written) and (outcome.part is not None or isinstance(operation, Delete)):
        return without_value(outcome)
    return outcome


def without_value(written: Written) -> Written:
    return replace(written, entry=replace(written.entry, value=b""))


@pytest.mark.parametrize("operation", CHANGES.values(), ids=CHANGES)
def test_equal_requests_in_one_batch_have_one_effect(operation: RequestedOperation, service: Service) -> None:
    alone = Service().decided(operation)[1]
    outcomes, changes = service.decided(keyed(operation), keyed(operation), keyed(operation))
    assert [type(outcome) for outcome in outcomes[1:]] == [Replayed, Replayed]
    assert [change for change in changes if not isinstance(change, Receipt)] == alone
    assert [change.name for change in changes if isinstance(change, Receipt)] == ["r"]


def test_the_change_and_its_receipt_have_the_same_revision(service: Service) -> None:
    _, changes = service.decided(Put("x", b"1"), keyed(Put("bob", b"1")), Put("y", b"1"))
    assert [(type(change).__name__, change.revision) for change in changes] == [
        ("Entry", HEAD + 1),
        ("Entry", HEAD + 2),
        ("Receipt", HEAD + 2),
        ("Entry", HEAD + 3),
    ]


def test_requests_with_other_keys_are_done_each(service: Service) -> None:
    for name in ("r", "s", "t"):
        service.outcome(keyed(Increment("counter", 1), receipt=name))
    assert service.receipts == ["r", "s", "t"]
    outcome = service.outcome(Increment("counter", 0))
    assert isinstance(outcome, Written)
    assert outcome.part == b"3"


def test_a_key_that_was_sent_with_another_request_is_refused(service: Service) -> None:
    service.outcome(keyed(Put("bob", b"1")))
    [outcome] = service.decide(keyed(Put("bob", b"2"), fingerprint=b"another "))
    assert code_of(outcome) == "idempotency_key_reused"
    [outcome] = service.decide(keyed(Put("bob", b"1")))
    assert isinstance(outcome, Replayed)


def test_a_condition_or_a_fence_is_not_decided_again(service: Service) -> None:
    operation = keyed(Put("alice", b"1", condition=Condition(if_match=(41,)), lease_id="id-of-held"))
    first = service.outcome(operation)
    service.outcome(Release("held", "id-of-held"))
    assert service.outcome(operation) == Replayed(first)  # type: ignore[arg-type] # it is stored


def test_a_repetition_gets_the_outcome_even_if_the_entry_has_changed_since(service: Service) -> None:
    operation = keyed(MergePatch("alice", {"m": 1}))
    first = service.outcome(operation)
    service.outcome(Delete("alice"))
    assert service.outcome(operation) == Replayed(first)  # type: ignore[arg-type] # it is stored


# No receipt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        Put("alice", b"1", condition=Condition(if_match=(7,))),
        Put("alice", b"1", lease_id="unknown"),
        Delete("absent"),
        Transaction((RevisionCheck("alice", 7),), (Put("alice", b"1"),)),
        Renew("held", "another"),
    ],
    ids=str,
)
def test_a_refused_request_leaves_no_receipt(operation: RequestedOperation, service: Service) -> None:
    outcomes, changes = service.decided(keyed(operation), keyed(operation, fingerprint=b"another "))
    assert all(isinstance(outcome, ServiceError) for outcome in outcomes)
    assert code_of(outcomes[0]) == code_of(outcomes[1]) != "idempotency_key_reused"
    assert changes == []


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (Acquire("held", "id", 5_000), Held),
        (Transaction((), (Read("alice"),)), object),
        (DeleteEach(("absent",), 0, 90), DeletedEntries),
    ],
    ids=["held lock", "reads", "nothing to delete"],
)
def test_a_request_that_changes_nothing_leaves_no_receipt(
    operation: RequestedOperation, kind: type[object], service: Service
) -> None:
    [outcome], changes = service.decided(keyed(operation))
    assert isinstance(outcome, kind)
    assert not isinstance(outcome, ServiceError)
    assert changes == []


def test_a_lock_that_was_held_is_acquired_by_the_repetition_once_it_is_free(service: Service) -> None:
    operation = keyed(Acquire("held", "mine", 5_000))
    assert isinstance(service.outcome(operation), Held)
    service.outcome(Release("held", "id-of-held"))
    first = service.outcome(operation)
    assert isinstance(first, Leased)
    other_attempt = keyed(Acquire("held", "another random id", 5_000))
    assert service.outcome(other_attempt) == Replayed(first)


def test_steps_that_have_deleted_before_leave_a_receipt_although_the_last_deletes_nothing(service: Service) -> None:
    operation = keyed(DeleteEach(("absent",), 3, 90))
    assert service.outcome(operation) == DeletedEntries(3, 90)
    assert service.outcome(operation) == Replayed(DeletedEntries(3, 90))


# What a receipt keeps -----------------------------------------------------------------------------------------


def memo_bytes(service: Service, operation: RequestedOperation) -> int:
    service.outcome(keyed(operation))
    return len(service.state.records(RECEIPT)["r"].memo)


LONG: Final = b'"' + b"x" * 10_000 + b'"'


@pytest.mark.parametrize(
    "operation",
    [
        Put("bob", LONG),
        Put("alice", LONG, path=("part",)),
        Put("bob", Binary("image/png", Content(LONG))),
        Transaction((), (Put("bob", Binary("image/png", Content(LONG))),)),
        Transaction((), (Put("bob", LONG), Put("alice", LONG, path=("part",)))),
    ],
    ids=["put", "put a part", "put bytes", "transaction with bytes", "transaction"],
)
def test_a_value_that_the_request_has_is_not_kept(operation: RequestedOperation, service: Service) -> None:
    assert memo_bytes(service, operation) < 200


def test_a_value_that_the_response_does_not_show_is_not_kept(service: Service) -> None:
    service.outcome(Put("bob", b'{"long":%b,"n":1}' % LONG))
    for operation in (Increment("bob", 1, path=("n",)), Delete("bob", path=("n",))):
        assert memo_bytes(service, operation) < 100
        service.outcome(Forget(("r",), service.state.revision))


def test_a_value_that_only_the_response_has_is_kept(service: Service) -> None:
    service.outcome(Put("bob", b'{"long":%b}' % LONG))
    assert memo_bytes(service, MergePatch("bob", {"n": 1})) > len(LONG)


def test_the_memo_of_a_usual_write_is_small(service: Service) -> None:
    assert memo_bytes(service, Put("orders/1234567", b'{"state":"paid"}')) < 64


def test_a_memo_that_cannot_be_read_is_an_error_of_the_service(service: Service) -> None:
    service.state.records(RECEIPT)["r"] = Receipt("r", b"\xc1", 5, NOW + 5)  # type: ignore[index] # a dict
    [outcome], changes = service.decided(keyed(Put("bob", b"1")))
    assert (code_of(outcome), changes) == ("internal", [])
    with pytest.raises(msgspec.DecodeError):
        decode_memo(b"\xc1")


# The end of a receipt -----------------------------------------------------------------------------------------


def test_from_its_expiry_on_the_request_is_done_again(service: Service) -> None:
    operation = keyed(Increment("counter", 1))
    service.outcome(operation)
    service.now += TTL
    assert isinstance(service.outcome(operation), Written)
    assert service.state.records(RECEIPT)["r"].expires_at == service.now + TTL


def test_receipts_are_removed_together_at_one_revision(service: Service) -> None:
    for name in ("r", "s", "t"):
        service.outcome(keyed(Increment("counter", 1), receipt=name))
    head = service.state.revision
    service.now += TTL
    assert service.outcome(Forget(("r", "s", "absent"), 0)) == Expired(head + 1)
    assert (service.state.revision, service.receipts) == (head + 1, ["t"])


def test_receipts_that_are_not_expired_and_newer_are_kept(service: Service) -> None:
    service.outcome(keyed(Put("bob", b"1"), receipt="old"))
    looked_at = service.state.revision
    service.outcome(keyed(Put("bob", b"1"), receipt="new"))
    assert service.outcome(Forget(("new",), looked_at)) == Unchanged()
    assert isinstance(service.outcome(Forget(("old", "new"), looked_at)), Expired)
    assert service.receipts == ["new"]


# Parts of a batch ---------------------------------------------------------------------------------------------


def test_the_receipt_and_what_the_operation_reads_are_loaded() -> None:
    operation = keyed(Put("bob", b"1", lease_id="id-of-held"))
    assert names_of(operation) == ((RECEIPT, "r"), *names_of(operation.operation))
    assert lookups_of(operation) == lookups_of(operation.operation)
    loaded = touched([operation, Forget(("s", "t"), 1), DeleteEach(("x", "y"), 0, 0)])
    assert loaded.names[RECEIPT] == ["r", "s", "t"]


def test_a_failure_between_the_change_and_its_receipt_leaves_neither(service: Service) -> None:
    class Full(dict[str, Change]):
        def update(self, *_changes: Any, **_others: Any) -> None:
            raise MemoryError

    batch = overlay.Overlay(service.state, HEAD, NOW, MIB)
    staged = overlay.Staging(batch)
    staged.put(RECEIPT, "r", Receipt("r", b"", HEAD + 1, NOW + 1))
    staged.put(ENTRY, "alice", Entry("alice", b"1", HEAD + 1, NOW, NOW))
    batch._changes[ENTRY] = Full()
    with pytest.raises(MemoryError):
        staged.keep()
    assert (batch.changes(), batch.revision) == ([], HEAD)


def test_the_work_of_a_request_with_a_key_counts_in_its_batch(service: Service) -> None:
    service.outcome(Put("large", b'{"long":"%b"}' % (b"x" * (MAX_BATCH_WORK_BYTES - 100))))
    operations = [keyed(Put("large", b"1", path=("n",)), receipt=name) for name in ("r", "s")]
    assert len(service.decide(*operations)) == 1
    assert service.receipts == ["r"]
