"""Moves the memory of the process into huge pages, so that the processor finds it sooner.

The entries of a large store lie everywhere in hundreds of megabytes. A request reads about ten places of an entry, and
with pages of 4 KiB the processor has to look up the address of each in the page tables. With huge pages of 2 MiB it
knows most of these addresses. This needs Linux 6.1; without it nothing happens. Where huge pages are switched off
(`never` in `/sys/kernel/mm/transparent_hugepage/enabled`), they stay off.

The kernel copies one huge page at a time, in 5 to 15 ms. Other threads continue unless they need this memory or change
the page tables.
"""

import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from leasehold.limits import MIB

HUGE_PAGE_BYTES: Final = 2 * MIB
"""On x86-64, and on ARM with pages of 4 KiB. With other sizes the kernel refuses the calls."""
GROWTH_BYTES: Final = 64 * MIB
"""The memory is moved when it has grown by this much since the last time."""
LOOK_SECONDS: Final = 10.0
"""Between two looks at how much memory there is."""
PAUSE_SECONDS: Final = 0.02
"""Between two huge pages. A request that needs the memory or the page tables meanwhile waits, but only a few do."""
MOST_MISSING_PAGES: Final = 16
"""A huge page may have this many pages of 4 KiB more than the memory that it replaces: 3 %."""

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PAGES: Final = HUGE_PAGE_BYTES // _PAGE_BYTES
_MADV_COLLAPSE: Final = 25
_FIRST_LINUX: Final = (6, 1)
_SETTING: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPPINGS: Final = Path("/proc/self/maps")
_SIZE: Final = Path("/proc/self/statm")

_library: Final = ctypes.CDLL(None)


class HugePages:
    """Keeps the memory in huge pages from `start` to `stop`, on a thread of its own."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leasehold-huge-pages", daemon=True)

    def start(self) -> None:
        """Begin. Nothing happens where the system has no huge pages, or where they are switched off."""
        if are_available():
            self._thread.start()

    def stop(self) -> None:
        """End, at the latest when the huge page in progress is complete."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        moved_at = 0
        while not self._stopped.is_set():
            now = _resident_bytes()
            moved_at = min(moved_at, now)
            if now - moved_at >= GROWTH_BYTES:
                self._move()
                moved_at = now
            self._stopped.wait(LOOK_SECONDS)

    def _move(self) -> None:
        for begin in _candidates():
            if _is_resident(begin):
                # It fails if the kernel finds no free huge page, or does not want one here. The memory stays as it was.
                _library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(HUGE_PAGE_BYTES), _MADV_COLLAPSE)
                if self._stopped.wait(PAUSE_SECONDS):
                    return


def are_available() -> bool:
    """Whether the system has huge pages that are not switched off, and can move memory into them."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if sys.platform != "linux" or release is None or tuple(map(int, release.groups())) < _FIRST_LINUX:
        return False
    try:
        return "[never]" not in _SETTING.read_text()
    except OSError:
        return False


def _resident_bytes() -> int:
    return int(_SIZE.read_text().split()[1]) * _PAGE_BYTES


def _candidates() -> Iterator[int]:
    """The addresses in the memory of this process at which a huge page could begin."""
    for line in _MAPPINGS.read_text().splitlines():
        addresses, rights, _, _, file, *name = line.split()
        if rights == "rw-p" and file == "0" and name in ([], ["[heap]"]):
            begin, end = (int(address, 16) for address in addresses.split("-"))
            first = -(-begin // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
            yield from range(first, end - HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES)


def _is_resident(begin: int) -> bool:
    """Whether nearly all of the memory is in use."""
    resident = (ctypes.c_ubyte * _PAGES)()
    if _library.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(HUGE_PAGE_BYTES), resident):
        return False
    return bytes(resident).count(1) >= _PAGES - MOST_MISSING_PAGES
