"""Reads entries from a service, as lines: see `entry_lines`.

`GET /backup` has all entries of one moment. It needs a token that covers all keys, and the service sends one at a time.
Lists are read in pages, so entries can change between two of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from leasehold_client import Client, Forbidden, Request, UnexpectedResponse

from leasehold.cli.pages import pages
from leasehold.cli.transfer.backup_lines import BackupLines
from leasehold.cli.transfer.entry_lines import key_of, listed_line, with_key
from leasehold.cli.transfer.prefixes import Prefix, renamed

SILENCE_SECONDS: Final = 60.0
"""How long the service may send nothing while it sends a backup."""
_EVERY_KEY: Final = (Prefix("", ""),)
_HEADERS: Final = (("Accept", "application/json"),)


class _Revision(msgspec.Struct):
    revision: int


class Export:
    """The lines of a service. `first_revision` and `last_revision` are known when all lines were read.

    If they are equal, the lines are of one moment: the entries as of this revision.
    """

    def __init__(self, db: Client, prefixes: Sequence[Prefix]) -> None:
        self._db = db
        self._prefixes = prefixes
        self.first_revision = self.last_revision = 0

    def moment(self) -> str:
        """Of which moment the lines are, for people. Call it when all lines were read."""
        if self.first_revision == self.last_revision:
            return f"all at revision {self.first_revision}"
        return (
            f"read from revision {self.first_revision} to {self.last_revision}: of what has changed meanwhile, "
            "some changes may be missing"
        )

    def of_one_moment(self) -> Iterator[bytes]:
        """Raises LeaseholdError, and at the end ServiceError unless the response was complete."""
        pieces = self._db.stream(Request("GET", "/backup", _HEADERS), silence_seconds=SILENCE_SECONDS)
        lines = BackupLines(pieces, "the response of the service")
        try:
            yield from self._taken(lines)
        except Forbidden as error:
            raise Forbidden(f"{error.message}; --pages reads what it covers") from error
        self.first_revision = self.last_revision = lines.revision

    def _taken(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        if not self._prefixes:
            yield from lines
            return
        for line in lines:
            old = key_of(line)
            new = renamed(old, self._prefixes)
            if new is not None:
                yield line if new == old else with_key(line, old, new)

    def in_pages(self) -> Iterator[bytes]:
        """Raises LeaseholdError."""
        self.first_revision = self._head()
        for number, prefix in enumerate(self._prefixes or _EVERY_KEY):
            earlier = self._prefixes[:number]
            for line in self._listed(prefix.old):
                old = key_of(line)
                if earlier and renamed(old, earlier) is not None:
                    continue
                new = renamed(old, (prefix,))
                yield line if new is None or new == old else with_key(line, old, new)
        self.last_revision = self._head()

    def _listed(self, prefix: str) -> Iterator[bytes]:
        parameters = [("base64", ""), *([("prefix", prefix)] if prefix else [])]
        for page in pages(self._db, "/kv", parameters):
            for raw in page:
                yield listed_line(bytes(raw))

    def _head(self) -> int:
        """The revision of the store."""
        response = self._db.send(Request("GET", "/kv?limit=1&values=false", _HEADERS))
        try:
            return msgspec.json.decode(response.content, type=_Revision).revision
        except msgspec.MsgspecError as error:
            raise UnexpectedResponse(f"the body of the response is not a list of entries: {error}") from error
