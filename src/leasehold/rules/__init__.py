"""All decisions, as pure functions: from operations, the state and the time to outcomes and the changes to write.

    batch.py           one batch of operations, in order
    plain_puts.py      a batch of plain puts, in one loop
    overlay.py         the state that a batch is decided on
    entries.py         writes, increments, partial updates and deletions of entries
    partial_updates.py what a partial update makes of a value; for a large one, before it is in the lane
    leases.py          acquire, renew, release
    transactions.py    several checks and operations, all or nothing
    quotas.py          no change takes a namespace beyond its quota
    receipts.py        idempotency keys: a request is done once
    terraform.py       states of Terraform, and their locks
    fences.py          the rule that refuses a write under a stale lease
    conditions.py      If-Match and If-None-Match
    reads.py           what a read returns

Nothing here does I/O or reads a clock. So every engine has the same rules, and an engine that retries a batch can call
them again.
"""

from leasehold.rules.batch import evaluate, lookups_of, names_of, touched
from leasehold.rules.leases import lock_held, lock_not_found
from leasehold.rules.partial_updates import preparation
from leasehold.rules.reads import evaluate_read, read_steps
from leasehold.rules.receipts import replayed

__all__ = [
    "evaluate",
    "evaluate_read",
    "lock_held",
    "lock_not_found",
    "lookups_of",
    "names_of",
    "preparation",
    "read_steps",
    "replayed",
    "touched",
]
