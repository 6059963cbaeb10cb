"""All decisions: operations, the state and the time go in; outcomes and the changes to write come out.

    batch.py        one batch of operations, in order
    overlay.py      the state that a batch is decided on, with savepoints
    entries.py      writes, partial updates and deletions of entries
    leases.py       acquire, renew, release
    fences.py       the rule that refuses a write under a stale lease
    conditions.py   If-Match and If-None-Match
    reads.py        what a read gives

Nothing here does I/O or reads a clock, so the rules are the same on every engine and can be run again when an engine
must retry.
"""

from leasehold.rules.batch import evaluate, lookups_of, names_of, touched
from leasehold.rules.leases import lock_held, lock_not_found
from leasehold.rules.reads import evaluate_read

__all__ = ["evaluate", "evaluate_read", "lock_held", "lock_not_found", "lookups_of", "names_of", "touched"]
