"""Checks of values in transactions. They are decided in `transactions`.

To compare large values takes tens of milliseconds, so it can be done before the transaction is in the write lane, in
steps, as for partial updates.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Final

from msgspec.structs import replace

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.limits import KIB, MAX_BATCH_WORK_BYTES
from leasehold.model import Binary, Check, Entry, Json, PreparedCheck, ValueCheck
from leasehold.values.steps import finished

_STEP_BYTES: Final = 64 * KIB
"""Smaller values are compared together, in steps of about this size."""


def holds(check: ValueCheck, value: Json) -> bool:
    """`value`: that of the entry, decoded."""
    try:
        part = values.get_at(value, check.path)
    except ServiceError as error:
        if error.code == "path_not_found":
            return False
        raise
    return values.are_equal(part, check.value)


def prepared_checks(
    checks: Sequence[Check], peek: Callable[[str], Entry | None]
) -> Generator[None, None, tuple[Check, ...]]:
    """The checks, and whether those of values hold now. `peek` returns a committed entry, expired or not."""
    prepared: list[Check] = []
    decoded: dict[bytes, Json] = {}
    """By their texts: one value may be checked often, and may change between the steps."""
    work_bytes = step_bytes = 0
    with values.collector_paused(values.LARGE_BYTES + 1):  # also between the steps
        for check in checks:
            entry = peek(check.key) if isinstance(check, ValueCheck) else None
            text = b"" if entry is None or isinstance(entry.value, Binary) else entry.value
            if not isinstance(check, ValueCheck) or not text:  # there is no JSON
                prepared.append(check)
                continue
            if text not in decoded:
                if work_bytes and work_bytes + len(text) > MAX_BATCH_WORK_BYTES:
                    break  # the transaction will be refused
                work_bytes += len(text)
                step_bytes += len(text)
                steps = values.decode_steps(text)
                try:
                    decoded[text] = finished(steps) if len(text) <= _STEP_BYTES else (yield from steps)
                except ServiceError:  # the transaction will be refused, unless this value is replaced before
                    prepared.append(check)
                    continue
            if step_bytes > _STEP_BYTES:
                yield
                step_bytes = 0
            prepared.append(replace(check, prepared=PreparedCheck(text, holds(check, decoded[text]))))
    return (*prepared, *checks[len(prepared) :])
