"""One batch of the write lane: from its operations to the moment when each caller has heard of its outcome.

Whatever raises on the way (a rule, the space, a completion, memory that has run out), a batch promises:

- Each completion is called with its outcome, or with an error.
- `ended` is called, so that the lane goes on.
- An error says what is known: `internal` if surely nothing was stored, else that it may have been.

`finish` keeps these promises. It may be called again after it has raised, and goes on where it was interrupted. So
whoever is called by the event loop and has a batch in hand needs one `try`, whose handler calls `finish`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import compress

from leasehold import rules
from leasehold.completions import complete_all, ends_the_process, report
from leasehold.engines.base import Space
from leasehold.errors import ServiceError, internal, outcome_unknown
from leasehold.model import Change, Delete, Expire, Operation, Outcome, Release, View

Done = Callable[[Outcome | ServiceError], None]
"""Gets the outcome of an operation. If it raises it has done nothing, and is called once more, with an error."""


class Batch:
    """Operations that are committed together, and what to call with the outcome of each."""

    __slots__ = (
        "_completions",
        "_ended",
        "_has_ended",
        "_left",
        "_max_value_bytes",
        "_outcomes",
        "again",
        "decided",
        "operations",
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
        """As `evaluate` decided; empty before."""
        self._left: Iterator[tuple[Done, Outcome | ServiceError]] | None = None
        """Whom to tell what, those left out who have been told. None until the outcome is known."""
        self.decided = 0
        """How many of the first operations were decided, once that is durable. `evaluate` may stop before the end."""
        self.again: Batch | None = None
        """To be committed next: what frees space, after a full disk has refused it together with the rest."""

    def commit(self, space: Space) -> None:
        """Let the space commit it. `ended` is called when that is over, maybe before this returns."""
        try:
            space.commit(rules.touched(self.operations), self._decide, self.finish)
        except BaseException as failure:
            # By its contract the space has stored nothing.
            self.refuse(failure)
            if ends_the_process(failure):
                raise

    def refuse(self, failure: BaseException) -> None:
        """End it by an exception before anything could be stored."""
        report("a batch failed; nothing of it was stored", failure, operations=len(self.operations))
        self.finish(internal("the service failed; nothing was changed"))

    def finish(self, error: ServiceError | None) -> None:
        """Tell each caller the outcome, or `error` if the commit failed, and call `ended`.

        Only the first call decides what they are told. If it raises, another call goes on where it was interrupted.
        """
        try:
            if self._left is None:
                self._left = self._told(error)
            complete_all(self._left, _unanswered)
        finally:
            if not self._has_ended:
                self._ended(self)
                self._has_ended = True

    def undecided(self) -> tuple[list[Operation], list[Done]]:
        """What must be asked again. Nobody has been told of it."""
        return self.operations[self.decided :], self._completions[self.decided :]

    def _decide(self, view: View, revision: int, now: int) -> Sequence[Change]:
        self._outcomes, changes = rules.evaluate(
            self.operations, view, revision, now, max_value_bytes=self._max_value_bytes
        )
        return changes

    def _told(self, error: ServiceError | None) -> Iterator[tuple[Done, Outcome | ServiceError]]:
        if error is None and not self._outcomes:
            error = outcome_unknown()  # the space has not asked
        if error is None:
            self.decided = len(self._outcomes)
            return zip(self._completions, self._outcomes, strict=False)
        refused = self._completions
        if error.code == "storage_full":
            refused = self._divided(refused)
        return zip(refused, [error] * len(refused), strict=True)

    def _divided(self, completions: list[Done]) -> list[Done]:
        """On a full disk: let deletions have a second turn by themselves. Returns who is refused."""
        frees = [_frees_space(operation) for operation in self.operations]
        if not any(frees) or all(frees):
            return completions
        self.again = Batch(
            list(compress(self.operations, frees)),
            list(compress(completions, frees)),
            max_value_bytes=self._max_value_bytes,
            ended=self._ended,
        )
        return [complete for complete, spared in zip(completions, frees, strict=True) if not spared]


def _unanswered() -> ServiceError:
    return ServiceError(
        "internal",
        "the service failed while it answered; the change may or may not have been stored",
        is_outcome_unknown=True,
    )


def _frees_space(operation: Operation) -> bool:
    if isinstance(operation, Delete):
        return not operation.path
    return isinstance(operation, Expire | Release)
