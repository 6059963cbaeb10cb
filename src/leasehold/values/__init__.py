"""JSON values: text in and out, pointers, patches. Pure functions.

text.py          JSON and MessagePack in and out, with every check of what is let in
pointers.py      JSON Pointers, and the part of a value at one
patches.py       merge patches and JSON patches
budgets.py       what one change of a value may cost
json_text.py     facts about a JSON text, found without decoding it
messagepack.py   how many lists and objects a MessagePack body has, found without decoding it
entry_text.py    the JSON text of an entry
"""

from leasehold.values.patches import (
    json_patch,
    merge_patch,
    parse_json_patch,
)
from leasehold.values.pointers import (
    container_for,
    format_pointer,
    get_at,
    parse_pointer,
    remove_at,
    set_at,
)
from leasehold.values.text import (
    LARGE_BYTES,
    UNREADABLE,
    check_size,
    collector_paused,
    decode,
    encode,
    encode_bounded,
    fits_messagepack,
    is_json,
    parse_json,
    parse_json_value,
    parse_messagepack,
    parse_messagepack_value,
    to_messagepack,
    unreadable,
)

__all__ = [
    "LARGE_BYTES",
    "UNREADABLE",
    "check_size",
    "collector_paused",
    "container_for",
    "decode",
    "encode",
    "encode_bounded",
    "fits_messagepack",
    "format_pointer",
    "get_at",
    "is_json",
    "json_patch",
    "merge_patch",
    "parse_json",
    "parse_json_patch",
    "parse_json_value",
    "parse_messagepack",
    "parse_messagepack_value",
    "parse_pointer",
    "remove_at",
    "set_at",
    "to_messagepack",
    "unreadable",
]
