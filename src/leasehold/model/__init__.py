"""What the service keeps and what may be asked of it: frozen data, no behaviour beyond naming a fact.

    records.py      entries and leases, and what one commit leaves of them
    operations.py   reads and changes that callers ask for
    outcomes.py     what became of them

Values are `bytes`: the compact JSON text that `values.encode` made, decoded only where something must look inside.
Times are integers, microseconds since the epoch, UTC.
"""

from leasehold.model.operations import (
    Acquire,
    Condition,
    Delete,
    EntryOperation,
    Expire,
    ExpireLease,
    Json,
    JsonPatch,
    LockOperation,
    MergePatch,
    Operation,
    PatchStep,
    Pointer,
    Put,
    Read,
    Release,
    Renew,
    Tag,
    Tags,
    name_of,
)
from leasehold.model.outcomes import (
    Deleted,
    Found,
    Held,
    Leased,
    NotModified,
    Outcome,
    Released,
    Unchanged,
    Written,
)
from leasehold.model.records import (
    Change,
    Deletion,
    Entry,
    EntryChange,
    Lease,
    LeaseChange,
    LeaseEnd,
    Page,
    Touched,
    View,
    is_expired,
)

__all__ = [
    "Acquire",
    "Change",
    "Condition",
    "Delete",
    "Deleted",
    "Deletion",
    "Entry",
    "EntryChange",
    "EntryOperation",
    "Expire",
    "ExpireLease",
    "Found",
    "Held",
    "Json",
    "JsonPatch",
    "Lease",
    "LeaseChange",
    "LeaseEnd",
    "Leased",
    "LockOperation",
    "MergePatch",
    "NotModified",
    "Operation",
    "Outcome",
    "Page",
    "PatchStep",
    "Pointer",
    "Put",
    "Read",
    "Release",
    "Released",
    "Renew",
    "Tag",
    "Tags",
    "Touched",
    "Unchanged",
    "View",
    "Written",
    "is_expired",
    "name_of",
]
