"""One batch of the write lane: it is committed, then each caller gets the outcome of its operation.

Any step may raise: a rule, the space, a completion, or Python itself when memory runs out. In every case:

- Each completion is called with its outcome, or with an error.
- `ended` is called, so that the lane continues.
- The error says what is known: nothing was changed, or the change may have been stored.

`finish` does this. If it raises, it can be called again and continues where it was interrupted. So each callback of the
event loop that handles a batch needs one `try`, whose handler calls `finish`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import compress

from leasehold import rules
from leasehold.completions import complete_all, ends_the_process, report
from leasehold.engines.base import Space
from leasehold.errors import ServiceError, internal, outcome_unknown
from leasehold.model import Change, Delete, Expire, Forget, Operation, Outcome, Read, Release, Transaction, View

Done = Callable[[Outcome | ServiceError], None]
"""Gets the outcome of an operation. If it raises, it must have had no effect; it is called once more with an error."""


class Batch:
    """Operations that are committed together, and what to call with the outcome of each."""

    __slots__ = (
        "_completions",
        "_ended",
        "_has_ended",
        "_max_value_bytes",
        "_outcomes",
        "_pending",
        "decided",
        "operations",
        "retry",
    )

    def __init__(
        self,
        operations: list[Operation],
        completions: list[Done],
        *,
        max_value_bytes: int,
        ended: Callable[["Batch"], None],
    ) -> None:
        self.operations = operations
        self._completions = completions
        self._max_value_bytes = max_value_bytes
        self._ended = ended
        self._has_ended = False
        self._outcomes: Sequence[Outcome | ServiceError] = ()
        """The result of `evaluate`; empty before."""
        self._pending: Iterator[tuple[Done, Outcome | ServiceError]] | None = None
        """The completions that have not been called yet, with their results. None until the outcome is known."""
        self.decided = 0
        """How many of the first operations are decided and durable. `evaluate` may stop before the end."""
        self.retry: Batch | None = None
        """To be committed next: the deletions of this batch, if the batch failed because the disk is full."""

    def commit(self, space: Space) -> None:
        """Let the space commit it. `ended` is called after the commit, maybe before this returns."""
        try:
            space.commit(rules.touched(self.operations), self._decide, self.finish)
        except BaseException as failure:
            # By its contract the space has stored nothing.
            self.refuse(failure)
            if ends_the_process(failure):
                raise

    def refuse(self, failure: BaseException) -> None:
        """End it because of an exception that was raised before anything could be stored."""
        report("a batch failed; nothing of it was stored", failure, operations=len(self.operations))
        self.finish(internal("the service failed; nothing was changed"))

    def finish(self, error: ServiceError | None) -> None:
        """Call each completion with its outcome, or with `error` if the commit failed. Then call `ended`.

        Only the first call decides the results. If it raises, another call continues where it was interrupted.
        """
        try:
            if self._pending is None:
                self._pending = self._results(error)
            complete_all(self._pending, _completion_failed)
        finally:
            if not self._has_ended:
                self._ended(self)
                self._has_ended = True

    def undecided(self) -> tuple[list[Operation], list[Done]]:
        """The operations to submit again, and their completions, which have not been called."""
        return self.operations[self.decided :], self._completions[self.decided :]

    def _decide(self, view: View, revision: int, now: int) -> Sequence[Change]:
        self._outcomes, changes = rules.evaluate(
            self.operations, view, revision, now, max_value_bytes=self._max_value_bytes
        )
        return changes

    def _results(self, error: ServiceError | None) -> Iterator[tuple[Done, Outcome | ServiceError]]:
        if error is None and not self._outcomes:
            error = outcome_unknown()  # the space broke its contract: it did not call `decide`
        if error is None:
            self.decided = len(self._outcomes)
            return zip(self._completions, self._outcomes, strict=False)
        refused = self._completions
        if error.code == "storage_full":
            refused = self._split_deletions(refused)
        return zip(refused, [error] * len(refused), strict=True)

    def _split_deletions(self, completions: list[Done]) -> list[Done]:
        """On a full disk: retry the deletions in a batch of their own. Returns the completions of the other operations.

        A deletion frees space, but it fails together with the writes in its batch.
        """
        frees = [_frees_space(operation) for operation in self.operations]
        if not any(frees) or all(frees):
            return completions
        self.retry = Batch(
            list(compress(self.operations, frees)),
            list(compress(completions, frees)),
            max_value_bytes=self._max_value_bytes,
            ended=self._ended,
        )
        return [complete for complete, is_retried in zip(completions, frees, strict=True) if not is_retried]


def _completion_failed() -> ServiceError:
    return ServiceError(
        "internal",
        "the service failed while it answered; the change may or may not have been stored",
        is_outcome_unknown=True,
    )


def _frees_space(operation: Operation) -> bool:
    if isinstance(operation, Delete):
        return not operation.path
    if isinstance(operation, Transaction):
        return all(isinstance(each, Read) or _frees_space(each) for each in operation.operations)
    return isinstance(operation, Expire | Forget | Release)
