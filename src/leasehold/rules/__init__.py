"""All decisions: operations, the state and the time go in; outcomes and the records to write come out. No I/O."""

from leasehold.rules.batch import evaluate, evaluate_read, lock_held, lock_not_found, touched

__all__ = ["evaluate", "evaluate_read", "lock_held", "lock_not_found", "touched"]
