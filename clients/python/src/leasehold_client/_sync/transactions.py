# Made from `_async/transactions.py` by tools/make_sync.py: edit that file.
"""A transaction: gathered in a block, sent at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from leasehold_client.protocol.messages import Request, Response
from leasehold_client.protocol.transactions import Operations, Result, read_results, read_revision


class Transaction(Operations):
    """Several checks and operations. At the end of the block the service does all of them, or nothing.

    If the block raises an exception, nothing is sent. PreconditionFailed (with `failed`) if a check does not hold; the
    error of an operation that is refused has its number as `details["index"]`.

    After the block, `results` has one item for each operation: an Entry without its value (`increment` has the sum, and
    `get` the value), a Deletion, or None for a `get` of an entry that does not exist.
    """

    def __init__(self, write: Callable[[Request], Response], lease_id: str | None) -> None:
        super().__init__()
        self._write = write
        self._lease_id = lease_id
        self.revision: int | None = None
        """The revision of all changes, after the block."""
        self.results: Sequence[Result] = ()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            response = self._write(self.request(self._lease_id))
            self.revision, self.results = read_revision(response), read_results(response)
