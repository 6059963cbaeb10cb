"""The entries of a backup, while it is read: of a file, or of the response to `GET /backup`."""

from collections.abc import Iterable, Iterator

import msgspec

from leasehold.engines.seals import Seal
from leasehold.errors import unavailable


class _Head(msgspec.Struct):
    leasehold: int
    revision: int


class BackupLines:
    """`revision`: that of all entries, once the first line was read.

    The lines are given out before the end of the backup, and so its checksum, is known.
    """

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._chunks = chunks
        self._name = name
        self.revision = 0

    def __iter__(self) -> Iterator[bytes]:
        """One line for each entry: see `entry_lines`. Raises `unavailable` at the end unless the backup is complete."""
        seal = Seal()
        rest = b""
        has_head = has_end = False
        for chunk in self._chunks:
            seal.take(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not has_head:
                    has_head, self.revision = True, self._revision_in(line)
                elif line.startswith(b"]"):
                    has_end = True
                elif not has_end:
                    yield line.removesuffix(b",")
        seal.check(self._name)

    def _revision_in(self, head: bytes) -> int:
        try:
            return msgspec.json.decode(head + b"]}", type=_Head).revision
        except msgspec.MsgspecError as error:
            raise unavailable(f"{self._name} is not a backup") from error
