"""When `data.json` is written: pure functions of times, sizes and what is in the journal.

- A small store writes each isolated commit to `data.json` before it is answered. Commits that follow one another go to
  the journal, and `data.json` is brought up to date while they come (`STALE_SECONDS`) and after the last one
  (`IDLE_SECONDS`).
- A larger store writes all commits to the journal, and `data.json` when the journal has become large.
- At the end, `data.json` is written unless that would take too long.

Sizes are the approximate sizes of `data.json`. Times are in seconds, by the clock of the event loop.
"""

from typing import Final

from leasehold.limits import KIB, MAX_LAST_CHECKPOINT_BYTES, MIB

SMALL_STORE_BYTES: Final = 256 * KIB
"""A store of at most this size is small: writing all of it takes 1 to 2 ms, most of it for the syncs."""
ISOLATED_SECONDS: Final = 0.005
"""A commit is isolated if the previous one ended at least this long before. A lone writer that sends each request after
the previous answer comes again within 0.3 ms, and commits under load follow one another at once."""
MAX_ISOLATED_OPERATIONS: Final = 8
"""A commit of more operations is not isolated. With many writers, more than ISOLATED_SECONDS may pass while a batch is
answered and the next one is received: 256 writers did a quarter fewer writes when such batches went to `data.json`."""
IDLE_SECONDS: Final = 0.1
"""After this time without a commit, the journal of a small store is moved to `data.json`."""
STALE_SECONDS: Final = 0.8
"""While commits come, `data.json` of a small store is written once it has lacked a change for this long. The rest of a
second is for the interval between two looks (IDLE_SECONDS) and for the writing."""
MIN_JOURNAL_BYTES: Final = 16 * MIB
"""While there are commits, a checkpoint begins only if the journal is larger than this."""


def is_small(text_bytes: int) -> bool:
    return text_bytes <= SMALL_STORE_BYTES


def is_isolated(now: float, last_ended_at: float, operations: int) -> bool:
    """Whether a commit of so many operations that begins now is isolated. The last one ended at `last_ended_at`."""
    return operations <= MAX_ISOLATED_OPERATIONS and now - last_ended_at >= ISOLATED_SECONDS


def is_journal_too_large(journal_bytes: int, text_bytes: int) -> bool:
    """Whether a checkpoint begins while there are commits."""
    return journal_bytes > max(MIN_JOURNAL_BYTES, text_bytes)


def is_stale(seconds: float, text_bytes: int) -> bool:
    """Whether `data.json`, which lacks the changes of the last `seconds`, is written while there are commits."""
    return is_small(text_bytes) and seconds >= STALE_SECONDS


def is_due_when_idle(text_bytes: int, journal_bytes: int, *, has_old_journal: bool) -> bool:
    """Whether a checkpoint begins when there was no commit for IDLE_SECONDS."""
    return is_small(text_bytes) or has_old_journal or journal_bytes > text_bytes // 2


def leaves_journal(text_bytes: int) -> bool:
    """Whether the last changes are left in the journal at the end, because writing `data.json` would take too long."""
    return text_bytes > MAX_LAST_CHECKPOINT_BYTES
