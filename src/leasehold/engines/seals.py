"""The checksum at the end of a backup. Separate from `backups`, so that checking a download imports no engine."""

import hashlib
import re
from typing import Final

from leasehold.errors import unavailable

SEAL: Final = b'\n], "sha256": "%b"}\n'
SEAL_BYTES: Final = len(SEAL % bytes(64))
_SEALED: Final = re.compile(rb'\n\], "sha256": "([0-9a-f]{64})"\}\n')


class Seal:
    """Checks the bytes of a backup while they are copied: that none are missing and none are changed."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._end = b""

    def take(self, data: bytes) -> None:
        """Process the next bytes."""
        text = self._end + data
        self._digest.update(text[:-SEAL_BYTES])
        self._end = text[-SEAL_BYTES:]

    @property
    def is_present(self) -> bool:
        return _SEALED.fullmatch(self._end) is not None

    def check(self, name: str) -> None:
        """Call after the last bytes. Raises `unavailable` unless the backup is complete and unchanged."""
        sealed = _SEALED.fullmatch(self._end)
        if sealed is None:
            raise unavailable(f"{name} is cut off: the checksum at the end of a backup is missing")
        if sealed[1] != self._digest.hexdigest().encode():
            raise unavailable(f"{name} is damaged: its checksum does not match its content")
