"""`leasehold` with a planted bug of receipts, or one that dies between a commit and its answers.

LEASEHOLD_TEST_BUG names one of `BUGS`.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from leasehold.cli import app as cli
from leasehold.engines.memory.state import State
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError
from leasehold.model import (
    RECEIPT,
    Keyed,
    Memo,
    Operation,
    Outcome,
    Receipt,
    StoredOutcome,
    Unchanged,
    encode_memo,
)
from leasehold.rules import receipts
from leasehold.rules.overlay import Overlay
from leasehold.store.batch import Batch
from leasehold.store.lane import Lane

Done = Callable[[Outcome | ServiceError], None]

HOUR_MICROSECONDS: Final = 3_600_000_000


def die_before_answering() -> None:
    """The process is killed as soon as a request with an idempotency key is durable."""
    finish = Batch.finish

    def finish_or_die(self: Batch, error: ServiceError | None) -> None:
        if any(isinstance(operation, Keyed) for operation in self.operations):
            os.kill(os.getpid(), signal.SIGKILL)
        finish(self, error)

    Batch.finish = finish_or_die  # type: ignore[method-assign]


def write_receipts_later() -> None:
    """A receipt is written in the commit after that of its change."""
    submit = Lane.submit
    outcomes: dict[str, StoredOutcome] = {}

    def once(overlay: Overlay, keyed: Keyed, decide: receipts.Decide) -> Outcome:
        if keyed.receipt in outcomes and keyed.ttl == 0:
            memo = encode_memo(Memo(keyed.fingerprint, outcomes.pop(keyed.receipt)))
            receipt = Receipt(keyed.receipt, memo, overlay.next_revision(), overlay.now + HOUR_MICROSECONDS)
            overlay.put(RECEIPT, keyed.receipt, receipt)
            return Unchanged()
        receipt_before = overlay.live(RECEIPT, keyed.receipt)
        if receipt_before is not None:
            return receipts.replayed(receipt_before, keyed)
        return decide(overlay, keyed.operation)

    def submit_twice(self: Lane, operation: Operation, done: Done) -> None:
        if not isinstance(operation, Keyed):
            submit(self, operation, done)
            return

        def noting(outcome: Outcome | ServiceError) -> None:
            if isinstance(outcome, StoredOutcome):
                outcomes[operation.receipt] = receipts._abridged(outcome, operation.operation)
                submit(self, replace(operation, ttl=0), lambda _: None)
            done(outcome)

        submit(self, operation, noting)

    receipts.once = once
    Lane.submit = submit_twice  # type: ignore[method-assign]


def forget_receipts_at_a_start() -> None:
    """The receipts of before are not loaded."""
    load = State.__init__

    def load_without_receipts(self: State, stored: StoredState) -> None:
        stored.of(RECEIPT).by_name.clear()
        load(self, stored)

    State.__init__ = load_without_receipts  # type: ignore[method-assign]


def ignore_idempotency_keys() -> None:
    """A request with a key is done like any other."""
    receipts.once = lambda overlay, keyed, decide: decide(overlay, keyed.operation)


BUGS: Final = {
    "die before answering": die_before_answering,
    "write receipts later": write_receipts_later,
    "forget receipts at a start": forget_receipts_at_a_start,
    "ignore idempotency keys": ignore_idempotency_keys,
}

if __name__ == "__main__":
    BUGS[os.environ.pop("LEASEHOLD_TEST_BUG")]()
    cli.main()
