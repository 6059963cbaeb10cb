"""JSON values: parsing, encoding, pointers and patches. Pure functions.

text.py          parse and encode JSON and MessagePack, with every check of a value from outside
pointers.py      JSON Pointers: read and change the part of a value
patches.py       merge patches and JSON patches
budgets.py       how much work one change of a value may take
binary.py        values that are bytes: their media type, and base64
json_text.py     facts about a JSON text, without decoding it
json_pieces.py   divides a JSON text into pieces that are JSON themselves
decoding.py      decodes large stored values in steps
kept_text.py     text that must be JSON, and is kept as it was sent
steps.py         work that is done in steps
messagepack.py   the number of lists and maps in a MessagePack body, without decoding it
entry_text.py    an entry as JSON text, and as MessagePack
"""

from leasehold.values.binary import from_base64, parse_media_type, to_base64, type_of
from leasehold.values.collector import LARGE_BYTES, collector_paused
from leasehold.values.decoding import decode_steps, to_messagepack_steps
from leasehold.values.json_pieces import PIECE_BYTES
from leasehold.values.kept_text import check_json_text, check_steps
from leasehold.values.patches import (
    are_equal,
    json_patch,
    json_patch_document_steps,
    json_patch_steps,
    merge_patch,
    merge_patch_steps,
    parse_json_patch,
)
from leasehold.values.pointers import (
    container_for,
    format_pointer,
    get_at,
    number_at,
    parse_pointer,
    remove_at,
    set_at,
    sum_of,
)
from leasehold.values.text import (
    UNREADABLE,
    check_size,
    decode,
    decode_all,
    encode,
    encode_bounded,
    fits_messagepack,
    is_json,
    json_value_steps,
    messagepack_value_steps,
    parse_json,
    parse_json_value,
    parse_messagepack,
    parse_messagepack_value,
    to_messagepack,
    unreadable,
)

__all__ = [
    "LARGE_BYTES",
    "PIECE_BYTES",
    "UNREADABLE",
    "are_equal",
    "check_json_text",
    "check_size",
    "check_steps",
    "collector_paused",
    "container_for",
    "decode",
    "decode_all",
    "decode_steps",
    "encode",
    "encode_bounded",
    "fits_messagepack",
    "format_pointer",
    "from_base64",
    "get_at",
    "is_json",
    "json_patch",
    "json_patch_document_steps",
    "json_patch_steps",
    "json_value_steps",
    "merge_patch",
    "merge_patch_steps",
    "messagepack_value_steps",
    "number_at",
    "parse_json",
    "parse_json_patch",
    "parse_json_value",
    "parse_media_type",
    "parse_messagepack",
    "parse_messagepack_value",
    "parse_pointer",
    "remove_at",
    "set_at",
    "sum_of",
    "to_base64",
    "to_messagepack",
    "to_messagepack_steps",
    "type_of",
    "unreadable",
]
