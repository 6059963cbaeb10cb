"""The checksum at the end of a backup. Apart from `backups`, so that a download needs no engine to check it."""

import hashlib
import re
from typing import Final

from leasehold.errors import unavailable

SEAL: Final = b'\n], "sha256": "%b"}\n'
SEAL_BYTES: Final = len(SEAL % bytes(64))
_SEALED: Final = re.compile(rb'\n\], "sha256": "([0-9a-f]{64})"\}\n')


class Seal:
    """Tells of a backup that passes by, in pieces, whether it is whole."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._end = b""

    def take(self, data: bytes) -> None:
        """The next bytes of it."""
        text = self._end + data
        self._digest.update(text[:-SEAL_BYTES])
        self._end = text[-SEAL_BYTES:]

    @property
    def is_present(self) -> bool:
        return _SEALED.fullmatch(self._end) is not None

    def check(self, name: str) -> None:
        """All of it has passed. Raises `unavailable` unless it is whole and unchanged."""
        sealed = _SEALED.fullmatch(self._end)
        if sealed is None:
            raise unavailable(f"{name} is cut off: it does not end as a backup ends")
        if sealed[1] != self._digest.hexdigest().encode():
            raise unavailable(f"{name} is damaged: its checksum is of other content")
