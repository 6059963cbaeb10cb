"""Parse and encode JSON and MessagePack, with all checks of a value before it is stored.

A value is kept as `bytes`: its compact JSON text. `parse_*` accept only what every engine and both formats represent
exactly, so nothing has to be checked later: strings are Unicode without U+0000, integers lie within
MIN_INTEGER..MAX_INTEGER, other numbers are finite doubles, and nesting is at most MAX_NESTING.
"""

import math
import re
from collections.abc import Callable, Generator, Sequence, Sized
from itertools import chain
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.limits import MAX_CONTAINERS, MAX_INTEGER, MAX_NESTING, MIN_INTEGER
from leasehold.model import Json
from leasehold.values import json_text
from leasehold.values.collector import LARGE_BYTES, collector_paused
from leasehold.values.json_pieces import with_float_zeros_steps
from leasehold.values.messagepack import count_steps, has_more_containers

_decode_json: Final[Callable[[bytes], Json]] = msgspec.json.Decoder().decode
_decode_messagepack: Final[Callable[[bytes], Json]] = msgspec.msgpack.Decoder().decode
_encode_json: Final = msgspec.json.Encoder().encode
_encode_messagepack: Final = msgspec.msgpack.Encoder().encode


# JSON in and out ----------------------------------------------------------------------------------------------


def parse_json(body: bytes, *, max_containers: int | None = MAX_CONTAINERS, brackets: int | None = None) -> bytes:
    """Check a JSON text from outside and return its compact encoding. `brackets`: from `brackets_at_most`, if known.

    Raises `invalid_json`, and `too_large` for more than `max_containers` lists and objects (None: no limit).
    """
    if (
        len(body) <= MAX_NESTING
        and json_text.BACKSLASH not in body
        and (json_text.MINUS not in body or body.find(b"-0") < 0)
    ):
        # Nearly all bodies, as in `parse_json_value`, but without calls.
        try:
            value = _decode_json(body)
            _encode_messagepack(value)  # as in `_check_integers`
            encoded = _encode_json(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
            pass  # the general way, below, says what is wrong
        else:
            return body if encoded == body else encoded
    if len(body) <= LARGE_BYTES:
        return _encoded_or_same(parse_json_value(body, brackets=brackets), body)
    with collector_paused(len(body)):
        return _encode_json(parse_json_value(body, max_containers=max_containers, brackets=brackets))


def _encoded_or_same(value: Json, body: bytes) -> bytes:
    """The encoding of `value`, or `body` if it is equal.

    The encoder shrinks its result from 1 KiB, so it cannot take the place in memory of a value that it replaces.
    150,000 overwritten values of 100 bytes took 29 MB more.
    """
    encoded = _encode_json(value)
    return body if encoded == body else encoded


def parse_json_value(body: bytes, *, max_containers: int | None = MAX_CONTAINERS, brackets: int | None = None) -> Json:
    """Like `parse_json`, but returns the decoded value."""
    if (
        len(body) <= MAX_NESTING
        and json_text.BACKSLASH not in body
        and (json_text.MINUS not in body or body.find(b"-0") < 0)
    ):
        # Nearly all bodies: too short to be nested too deeply, without an escaped U+0000 and without `-0`.
        value = _decoded(body)
        _check_integers(value)
        return value
    _check_nesting(body, max_containers, brackets)
    value = _decoded_and_checked(body)
    with_signs = json_text.with_float_zeros(body)
    return value if with_signs is body else _decode_json(with_signs)


def json_value_steps(body: bytes, *, brackets: int | None) -> Generator[None, None, Json]:
    """`parse_json_value` of a large body in steps, each of up to 25 ms for a mebibyte."""
    _check_nesting(body, MAX_CONTAINERS, brackets)
    yield
    value = _decoded_and_checked(body)
    if b"-0" not in body:
        return value
    with_signs = yield from with_float_zeros_steps(body)
    if with_signs == body:
        return value
    del value
    yield
    return _decode_json(with_signs)


def _check_nesting(body: bytes, max_containers: int | None, brackets: int | None) -> None:
    if len(body) > MAX_NESTING:
        if brackets is None:
            brackets = json_text.brackets_at_most(body)
        if brackets > MAX_NESTING:
            _check_brackets(body, brackets, max_containers)


def _decoded_and_checked(body: bytes) -> Json:
    """`parse_json_value` without its checks of nesting, and `-0` may have become 0."""
    with collector_paused(len(body)):
        value = _decoded(body)
    if json_text.holds_nul(body):
        raise _invalid_json("a string contains U+0000")
    if json_text.may_hold_digits(body, _DIGITS_OF_A_LARGE_INTEGER):
        _check_integers(value)
    return value


def _decoded(body: bytes) -> Json:
    try:
        return _decode_json(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of(error, body, "JSON") from error


def decode(value: bytes) -> Json:
    """Decode a stored value.

    Raises `internal` if it is not valid, because another program wrote it.
    """
    try:
        return _decode_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable() from error


def decode_all(stored: Sequence[bytes]) -> list[Json]:
    """As `decode`, for many small values. Without a call of Python for each it takes two thirds of the time."""
    try:
        return list(map(_decode_json, stored))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable() from error


UNREADABLE: Final = b""
"""Replaces a stored value that is not JSON at all, so that it is never sent to a client."""


def is_json(text: bytes) -> bool:
    try:
        _decode_json(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def unreadable(**details: str) -> ServiceError:
    """The error for a stored value that cannot be read; `details` identify it. It can still be replaced and deleted."""
    return ServiceError("internal", "the stored value cannot be read; replace or delete it", details=details)


def encode(value: Json) -> bytes:
    """The text to store for a value."""
    return _encode_json(value)


def encode_bounded(value: Json, *, max_bytes: int, before: bytes = b"") -> bytes:
    """Like `encode`, for the result of a change. `before`: the text of the value before the change.

    Raises `invalid_json` if the nesting is too deep, and `too_large` if the value is over a limit: `max_bytes`, or
    MAX_CONTAINERS lists and objects. A value that was over a limit before may be made smaller.
    """
    try:
        encoded = _encode_json(value)
    except RecursionError as error:
        raise _too_deep() from error
    if len(encoded) > MAX_NESTING and (brackets := json_text.brackets_at_most(encoded)) > MAX_NESTING:
        limit = MAX_CONTAINERS
        if brackets > limit:
            limit = max(limit, json_text.containers(before))
        _check_brackets(encoded, brackets, limit)
    check_size(encoded, max_bytes, before=before)
    return encoded


def check_size(value: Sized, max_bytes: int, *, before: Sized) -> None:
    """Raise `too_large` if a value is over `max_bytes`, unless it is no larger than `before`."""
    if len(value) > max_bytes and len(value) > len(before):
        raise too_large(max_bytes)


# MessagePack in and out ---------------------------------------------------------------------------------------


def parse_messagepack(body: bytes, *, max_bytes: int | None = None) -> bytes:
    """Check a MessagePack value from outside and return its JSON text.

    Raises `invalid_json`, also for what JSON cannot represent: binary data, extensions, timestamps, NaN, member names
    that are not strings. Raises `too_large` for more than MAX_CONTAINERS lists and objects, and for a text larger than
    `max_bytes` plus what a body may contain beside the value: the JSON text can be six times as long as the body.
    """
    with collector_paused(len(body)):
        return _parse_messagepack(body, max_bytes)[0]


def parse_messagepack_value(body: bytes, *, max_bytes: int | None = None) -> Json:
    """Like `parse_messagepack`, but returns the decoded value."""
    return _parse_messagepack(body, max_bytes)[1]


def _parse_messagepack(body: bytes, max_bytes: int | None) -> tuple[bytes, Json]:
    if has_more_containers(body, MAX_CONTAINERS):
        raise _too_many_containers(MAX_CONTAINERS)
    value = _unpacked(body)
    text = _text_of_unpacked(value, max_bytes)
    _check_kinds(value)
    return text, value


def messagepack_value_steps(body: bytes, *, max_bytes: int | None) -> Generator[None, None, Json]:
    """`parse_messagepack_value` in steps of up to 30 ms for a mebibyte."""
    if (yield from count_steps(body, MAX_CONTAINERS)):
        raise _too_many_containers(MAX_CONTAINERS)
    yield
    value = _unpacked(body)
    yield
    _text_of_unpacked(value, max_bytes)
    yield
    _check_kinds(value)
    return value


def _unpacked(body: bytes) -> Json:
    try:
        with collector_paused(len(body)):
            return _decode_messagepack(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of(error, body, "MessagePack") from error


def _text_of_unpacked(value: Json, max_bytes: int | None) -> bytes:
    """The JSON text of a value that was decoded from MessagePack, with its checks. `_check_kinds` has the others."""
    try:
        text = _encode_json(value)
    except RecursionError as error:
        raise _too_deep() from error
    except TypeError as error:
        raise _invalid_json("JSON has no extensions, and member names are strings") from error
    if max_bytes is not None and len(text) > max_bytes + LARGE_BYTES:  # room for the rest of the body
        raise too_large(max_bytes)
    if json_text.holds_nul(text):
        raise _invalid_json("a string contains U+0000")
    if (brackets := json_text.brackets_at_most(text)) > MAX_CONTAINERS:
        _check_brackets(text, brackets, MAX_CONTAINERS)
    return text


def to_messagepack(value: bytes) -> bytes:
    """A stored value as MessagePack. Raises like `decode`, also for an integer that MessagePack cannot represent."""
    with collector_paused(len(value)):
        return pack(decode(value))


def pack(value: Json) -> bytes:
    """The MessagePack of a stored value that was decoded. Raises `internal` if it cannot be represented."""
    try:
        return _encode_messagepack(value)
    except (OverflowError, RecursionError) as error:
        raise unreadable() from error


def fits_messagepack(text: bytes) -> bool:
    """Whether MessagePack can represent a stored text. It can, unless another program wrote a larger integer."""
    if not json_text.may_hold_digits(text, _DIGITS_OF_A_LARGE_INTEGER):
        return True
    try:
        to_messagepack(text)
    except ServiceError:
        return False
    return True


# Checks -------------------------------------------------------------------------------------------------------

# The decoder is strict about syntax, UTF-8, surrogates and doubles. Four things need checks of our own, which look at
# the bytes: U+0000, large integers, deep nesting, and the sign of `-0`, which the decoder drops.

_KINDS: Final = {type(None), bool, int, float, str, list, dict}
_DIGITS_OF_A_LARGE_INTEGER: Final = len(str(-MIN_INTEGER))
_BARE_WORD: Final = re.compile(rb"(?!(?:NaN|Infinity|[Tt]rue|[Ff]alse|[Nn]ull)$)[A-Za-z_][\w.@-]{0,99}", re.ASCII)
"""A string without quotes, such as `curl -d alice` sends."""
_HIGH_SURROGATE_AT_END: Final = re.compile(rb'(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}[^\\"]{0,4}"')
"""Of a pair whose second half is missing. The decoder looks for it in the next six bytes, and if the text ends before,
it reports only that."""
_BYTE_POSITION: Final = re.compile(r"\(byte ([0-9]+)\)")


def _check_brackets(text: bytes, brackets: int, max_containers: int | None) -> None:
    """Raise `invalid_json` over MAX_NESTING, `too_large` over `max_containers`. `brackets`: from `brackets_at_most`."""
    if json_text.is_deeper(text, MAX_NESTING):
        raise _too_deep()
    if max_containers is not None and brackets > max_containers and json_text.containers(text) > max_containers:
        raise _too_many_containers(max_containers)


def _check_kinds(value: Json) -> None:
    """Raise `invalid_json` for types that MessagePack has and JSON has not, and over MAX_NESTING.

    One nesting level at a time, so that most of the work is done in C: 4 ms for 260,000 strings, 10 ms for 100,000
    lists.
    """
    level: list[Json] = [value]
    for _ in range(MAX_NESTING + 1):
        kinds = set(map(type, level))
        if not kinds <= _KINDS:
            raise _invalid_json("JSON has no binary data, extensions or timestamps")
        if float in kinds and not all(map(math.isfinite, [part for part in level if type(part) is float])):
            raise _invalid_json("a number is NaN or infinite")
        objects = [part for part in level if type(part) is dict] if dict in kinds else []
        if not set(map(type, chain.from_iterable(objects))) <= {str}:
            raise _invalid_json("a member name is not a string")
        lists = [part for part in level if type(part) is list] if list in kinds else []
        if not objects and not lists:
            return
        level = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, objects))]
    raise _too_deep()


def _check_integers(value: Json) -> None:
    """Raise `invalid_json` if an integer lies outside MIN_INTEGER..MAX_INTEGER.

    These are the limits of MessagePack, so its encoder does the check, in a tenth of the time of a walk in Python.
    """
    try:
        _encode_messagepack(value)
    except OverflowError as error:
        raise _invalid_json(f"an integer is outside {MIN_INTEGER} to {MAX_INTEGER}") from error


def refusal_of(error: Exception, body: bytes, form: str, offset: int = 0) -> ServiceError:
    """The error for what the decoder refuses, in the words of this service. `offset`: of what it read in `body`."""
    if isinstance(error, UnicodeDecodeError):
        return _invalid_json("a string is not UTF-8")
    if isinstance(error, RecursionError):
        return _too_deep()
    if isinstance(error, msgspec.ValidationError):
        return _invalid_json("a number is out of range")
    if not body:
        return _invalid_json("the body is empty")
    if body.startswith(b"\xef\xbb\xbf"):
        return _invalid_json("the body begins with a byte order mark")
    if _BARE_WORD.fullmatch(body):
        return _invalid_json("a JSON string needs quotes; in a shell, -d '\"alice\"'")
    if "surrogate" in str(error) or _HIGH_SURROGATE_AT_END.search(body, max(len(body) - 11, 0)):
        return _invalid_json("a string contains a lone surrogate")
    position = _BYTE_POSITION.search(str(error))
    fault = f"is invalid at byte {int(position[1]) + offset}" if position else "ends too early"
    return _invalid_json(f"the {form} {fault}")


def _invalid_json(message: str) -> ServiceError:
    return ServiceError("invalid_json", message)


def _too_deep() -> ServiceError:
    return _invalid_json(f"nested deeper than {MAX_NESTING} levels")


def too_large(limit: int) -> ServiceError:
    """The error for a value that would be larger than `limit` bytes."""
    return ServiceError("too_large", f"the value would be larger than {limit} bytes", details={"limit": limit})


def _too_many_containers(limit: int) -> ServiceError:
    return ServiceError("too_large", f"more than {limit} lists and objects in a value", details={"limit": limit})
