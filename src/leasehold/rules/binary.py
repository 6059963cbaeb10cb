"""Which operations are legal on a value that is bytes: those that read, replace or delete the whole value.

Bytes have no parts, and they are not JSON. So a path, an increment or a patch is refused with `conflict`: on an entry
whose value is bytes, and a path also with bytes that are to be written there.
"""

from leasehold.errors import ServiceError
from leasehold.model import Binary, Entry


def json_text_of(entry: Entry) -> bytes:
    """The JSON text of a value that is read or changed in part. Raises `conflict` if the value is bytes."""
    value = entry.value
    if isinstance(value, Binary):
        raise no_parts()
    return value


def no_parts() -> ServiceError:
    """The refusal of an operation on a part of bytes."""
    return ServiceError("conflict", "the value is bytes, which have no parts; read or replace the whole value")
