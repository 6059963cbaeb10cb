"""JSON in and out, and the pure changes to a value.

A value is kept as `bytes`: its compact JSON text. What `parse_*` lets through is what every engine and both formats
carry exactly, so nothing later has to look again: strings are Unicode without U+0000, integers lie within
MIN_INTEGER..MAX_INTEGER, other numbers are finite doubles, nesting is at most MAX_NESTING.

The functions that change a value consume the one they are given: it was decoded for this call alone, may be changed
in place, and is worthless if the change is refused. What is put into it (`part`, `patch`, `steps`) stays as it was,
because an engine that retries asks for the same change again.
"""

import gc
import math
import re
from collections.abc import Callable, Sequence
from itertools import chain
from types import TracebackType
from typing import Final

import msgspec

from leasehold import json_text
from leasehold.budgets import MEMBER_WORK_BYTES, MERGED_OBJECT_WORK_BYTES, STEP_WORK_BYTES, WorkBudget
from leasehold.errors import ServiceError
from leasehold.limits import KIB, MAX_CONTAINERS, MAX_INTEGER, MAX_NESTING, MAX_PATCH_OPERATIONS, MIN_INTEGER
from leasehold.messagepack import has_more_containers
from leasehold.model import Json, PatchStep, Pointer

_decode_json: Final[Callable[[bytes], Json]] = msgspec.json.Decoder().decode
_decode_messagepack: Final[Callable[[bytes], Json]] = msgspec.msgpack.Decoder().decode
_encode_json: Final = msgspec.json.Encoder().encode
_encode_messagepack: Final = msgspec.msgpack.Encoder().encode

LARGE_BYTES: Final = 64 * KIB
"""The collector does not run while a text of this size is decoded."""


class collector_paused:  # noqa: N801 - used as a statement
    """Keep the cycle collector from walking a large value that is decoded, looked at and dropped again.

    It walks the new containers again and again while they come, which doubles the time of the decoder. `size` is of
    the text, in bytes. 0.3 µs if it is not large.
    """

    __slots__ = ("_pauses",)

    def __init__(self, size: int) -> None:
        self._pauses = size > LARGE_BYTES and gc.isenabled()

    def __enter__(self) -> None:
        if self._pauses:
            gc.disable()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pauses:
            gc.enable()


# JSON in and out ----------------------------------------------------------------------------------------------


def parse_json(body: bytes, *, max_containers: int | None = MAX_CONTAINERS) -> bytes:
    """Check a JSON text from outside and return its compact encoding.

    Raises `invalid_json`, and `too_large` for more than `max_containers` lists and objects; None: any number.
    1.0 µs for 60 bytes, of which decoding and encoding are 0.3.
    """
    if len(body) <= LARGE_BYTES:
        return _encode_json(parse_json_value(body))
    with collector_paused(len(body)):
        return _encode_json(parse_json_value(body, max_containers=max_containers))


def parse_json_value(body: bytes, *, max_containers: int | None = MAX_CONTAINERS) -> Json:
    """As `parse_json`, but the value itself."""
    if len(body) > MAX_NESTING and (brackets := json_text.brackets_at_most(body)) > MAX_NESTING:
        _check_brackets(body, brackets, max_containers)
    try:
        value = _decode_json(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error, body, "JSON") from error
    if json_text.holds_nul(body):
        raise _invalid_json("a string contains U+0000")
    if json_text.may_hold_digits(body, _DIGITS_OF_A_LARGE_INTEGER):
        _check_integers(value)
    with_signs = json_text.with_float_zeros(body)
    return value if with_signs is body else _decode_json(with_signs)


def decode(value: bytes) -> Json:
    """A stored value.

    Raises `internal` if it is none that was let in: another program wrote it.
    """
    try:
        return _decode_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable() from error


UNREADABLE: Final = b""
"""Stands for a stored value that is no JSON at all, so that nobody is sent it."""


def is_json(text: bytes) -> bool:
    try:
        _decode_json(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def unreadable(**details: str) -> ServiceError:
    """Of what is stored; `details` name it. It can be replaced and deleted all the same."""
    return ServiceError(
        "internal", "what is stored is no value that can be read; replace it or delete it", details=details
    )


def encode(value: Json) -> bytes:
    """The text to store."""
    return _encode_json(value)


def encode_bounded(value: Json, *, max_bytes: int, before: bytes = b"") -> bytes:
    """`encode` for a value that a change has made. `before` is its text before the change.

    Raises `invalid_json` if the change nested it too deep, and `too_large` if it is larger than it may be: over
    `max_bytes`, or with more than MAX_CONTAINERS lists and objects. What exceeded a limit before may become smaller.
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


def check_size(text: bytes, max_bytes: int, *, before: bytes) -> None:
    """Raise `too_large` for a text to store over `max_bytes`, unless it is no larger than the one `before` it."""
    if len(text) > max_bytes and len(text) > len(before):
        raise _too_large(max_bytes)


# MessagePack in and out ---------------------------------------------------------------------------------------


def parse_messagepack(body: bytes, *, max_bytes: int | None = None) -> bytes:
    """Check a MessagePack value from outside and return its JSON text.

    Raises `invalid_json`, also for what JSON cannot say: binary, extensions, timestamps, NaN, names other than
    strings. Raises `too_large` for more than MAX_CONTAINERS lists and objects, and for a text that is larger than
    `max_bytes` with all that may stand beside a value: JSON takes up to six times as many bytes.
    """
    with collector_paused(len(body)):
        return _parse_messagepack(body, max_bytes)[0]


def parse_messagepack_value(body: bytes, *, max_bytes: int | None = None) -> Json:
    """As `parse_messagepack`, but the value itself."""
    return _parse_messagepack(body, max_bytes)[1]


def _parse_messagepack(body: bytes, max_bytes: int | None) -> tuple[bytes, Json]:
    if has_more_containers(body, MAX_CONTAINERS):
        raise _too_many_containers(MAX_CONTAINERS)
    try:
        value = _decode_messagepack(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error, body, "MessagePack") from error
    try:
        text = _encode_json(value)
    except RecursionError as error:
        raise _too_deep() from error
    except TypeError as error:
        raise _invalid_json("JSON has no extensions, and member names are strings") from error
    if max_bytes is not None and len(text) > max_bytes + LARGE_BYTES:  # what stands beside a value is smaller
        raise _too_large(max_bytes)
    _check_kinds(value)
    if json_text.holds_nul(text):
        raise _invalid_json("a string contains U+0000")
    if (brackets := json_text.brackets_at_most(text)) > MAX_CONTAINERS:
        _check_brackets(text, brackets, MAX_CONTAINERS)
    return text, value


def to_messagepack(value: bytes) -> bytes:
    """A stored value as MessagePack. Raises as `decode`, also for an integer that MessagePack cannot carry."""
    with collector_paused(len(value)):
        try:
            return _encode_messagepack(decode(value))
        except (OverflowError, RecursionError) as error:
            raise unreadable() from error


def fits_messagepack(text: bytes) -> bool:
    """Whether MessagePack carries a stored text. It does unless another program wrote a larger integer."""
    if not json_text.may_hold_digits(text, _DIGITS_OF_A_LARGE_INTEGER):
        return True
    try:
        to_messagepack(text)
    except ServiceError:
        return False
    return True


# What is let in -----------------------------------------------------------------------------------------------

# The decoder is strict about syntax, UTF-8, surrogates and doubles. It lets through four things that we do not:
# U+0000, integers of any size, nesting as deep as its stack, and the loss of the sign of `-0`. A look at the bytes
# finds them.

_KINDS: Final = {type(None), bool, int, float, str, list, dict}
_DIGITS_OF_A_LARGE_INTEGER: Final = len(str(-MIN_INTEGER))
_BARE_WORD: Final = re.compile(rb"(?!(?:NaN|Infinity|[Tt]rue|[Ff]alse|[Nn]ull)$)[A-Za-z_][\w.@-]{0,99}", re.ASCII)
"""What `-d alice` sends."""
_BYTE_POSITION: Final = re.compile(r"\(byte ([0-9]+)\)")


def _check_brackets(text: bytes, brackets: int, max_containers: int | None) -> None:
    """Raise `invalid_json` over MAX_NESTING, `too_large` over `max_containers`. `brackets`: as `brackets_at_most`."""
    if json_text.depth(text) > MAX_NESTING:
        raise _too_deep()
    if max_containers is not None and brackets > max_containers and json_text.containers(text) > max_containers:
        raise _too_many_containers(max_containers)


def _check_kinds(value: Json) -> None:
    """Raise `invalid_json` for what MessagePack has and JSON has not, and over MAX_NESTING.

    Level by level, so that most of it is done in C: 4 ms for 260,000 strings, 10 for 100,000 lists.
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
            raise _invalid_json("a member name is no string")
        lists = [part for part in level if type(part) is list] if list in kinds else []
        if not objects and not lists:
            return
        level = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, objects))]
    raise _too_deep()


def _check_integers(value: Json) -> None:
    """Raise `invalid_json` if an integer lies outside MIN_INTEGER..MAX_INTEGER.

    They are the bounds of MessagePack, so its encoder looks, in a tenth of the time of a walk.
    """
    try:
        _encode_messagepack(value)
    except OverflowError as error:
        raise _invalid_json(f"an integer is outside {MIN_INTEGER} to {MAX_INTEGER}") from error


def _refusal(error: Exception, body: bytes, form: str) -> ServiceError:
    """In our own words, what the decoder refuses."""
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
    position = _BYTE_POSITION.search(str(error))
    fault = f"is wrong at byte {position[1]}" if position else "ends too early"
    return _invalid_json(f"the {form} {fault}")


def _invalid_json(message: str) -> ServiceError:
    return ServiceError("invalid_json", message)


def _too_deep() -> ServiceError:
    return _invalid_json(f"nested deeper than {MAX_NESTING} levels")


def _too_large(limit: int) -> ServiceError:
    return ServiceError("too_large", f"the value would be larger than {limit} bytes", details={"limit": limit})


def _too_many_containers(limit: int) -> ServiceError:
    return ServiceError("too_large", f"more than {limit} lists and objects in a value", details={"limit": limit})


# Paths (RFC 6901) ---------------------------------------------------------------------------------------------

_WRONG_ESCAPE: Final = re.compile("~(?![01])")
_FORBIDDEN: Final = re.compile("[\0\ud800-\udfff]")
_INDEX: Final = re.compile("0|[1-9][0-9]*")


def parse_pointer(text: str) -> Pointer:
    """The segments of a JSON Pointer. Raises `invalid_path`."""
    if not text:
        return ()
    if not text.startswith("/"):
        raise ServiceError("invalid_path", "a path is empty or begins with /")
    if _WRONG_ESCAPE.search(text):
        raise ServiceError("invalid_path", "in a path, ~ is written ~0 and / in a name ~1")
    if _FORBIDDEN.search(text):
        raise ServiceError("invalid_path", "a path contains U+0000 or a lone surrogate")
    if text.count("/") > MAX_NESTING:
        raise ServiceError("invalid_path", f"a path has more than {MAX_NESTING} segments")
    if "~" in text:  # U+0000, which is not in it, takes the place of the slashes that separate
        return tuple(text[1:].replace("/", "\0").replace("~1", "/").replace("~0", "~").split("\0"))
    return tuple(text[1:].split("/"))


def format_pointer(path: Pointer) -> str:
    return "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in path)


def _index(segment: str) -> int | None:
    """The place in a list that `segment` names, or None if it is no index (`-`, `01`, `name`)."""
    if _INDEX.fullmatch(segment) is None:
        return None
    return int(segment[:18])  # the rest of a longer number would only lead further past the end of any list


# Parts of a value ---------------------------------------------------------------------------------------------


def get_at(value: Json, path: Pointer) -> Json:
    """The part at `path`. Raises `path_not_found`."""
    for segment in path:
        if isinstance(value, dict) and segment in value:
            value = value[segment]
        elif isinstance(value, list) and (index := _index(segment)) is not None and index < len(value):
            value = value[index]
        else:
            raise _path_not_found(path)
    return value


def set_at(value: Json, path: Pointer, part: Json) -> Json:
    """`value` with `part` at `path`: a member set, an element replaced, or (`-`) one appended to its list.

    Missing containers on the way are made: objects, whatever the next segment looks like (objects with numeric names
    are common), but a list where only `-` is left. Raises `path_not_found` for an element that a list does not have,
    and `conflict` where the path runs through something that cannot hold the next segment.
    """
    if not path:
        return part
    *way, last = path
    container = value
    for depth, segment in enumerate(way, start=1):
        if isinstance(container, dict):
            container = container.setdefault(segment, container_for(path[depth:]))
        else:
            elements = _elements(container)
            container = elements[_place(elements, segment, path)]
    if isinstance(container, dict):
        container[last] = part
        return value
    elements = _elements(container)
    if last == "-":
        elements.append(part)
    else:
        elements[_place(elements, last, path)] = part
    return value


def container_for(path: Pointer) -> Json:
    """The empty container that is made where `path` shall begin and nothing is: a list to append to, else an object."""
    return [] if path == ("-",) else {}


def remove_at(value: Json, path: Pointer) -> Json:
    """`value` without the part at `path`, which is not `()`. Raises `path_not_found`."""
    get_at(value, path)
    *way, last = path
    container = get_at(value, tuple(way))
    if isinstance(container, dict):
        del container[last]
    elif isinstance(container, list):
        del container[int(last)]
    return value


def _elements(container: Json) -> list[Json]:
    if not isinstance(container, list):
        raise ServiceError("conflict", "the path runs through something that is no object or list")
    return container


def _place(elements: list[Json], segment: str, path: Pointer) -> int:
    """The index of the existing element that `segment` names."""
    index = _index(segment)
    if index is None and segment != "-":
        raise ServiceError("conflict", "the path names an element of a list by something that is no index")
    if index is None or index >= len(elements):
        raise _path_not_found(path)
    return index


def _path_not_found(path: Pointer) -> ServiceError:
    return ServiceError("path_not_found", "the value has nothing at this path", details={"path": format_pointer(path)})


# Merge Patch (RFC 7396) ---------------------------------------------------------------------------------------


def merge_patch(target: Json, patch: Json, budget: WorkBudget | None = None) -> Json:
    """`target` changed by a merge patch: null removes a member, objects are merged, anything else replaces.

    Raises `too_large` when the `budget` is used up.
    """
    return _merged(target, patch, WorkBudget() if budget is None else budget)


def _merged(target: Json, patch: Json, budget: WorkBudget) -> Json:
    if not isinstance(patch, dict):
        return patch
    budget.spend(MERGED_OBJECT_WORK_BYTES + MEMBER_WORK_BYTES * len(patch))
    merged = target if isinstance(target, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        elif isinstance(part, dict):
            merged[name] = _merged(merged.get(name), part, budget)
        else:
            merged[name] = part
    return merged


# JSON Patch (RFC 6902) ----------------------------------------------------------------------------------------


def parse_json_patch(document: Json) -> tuple[PatchStep, ...]:
    """The steps of a decoded patch document. Raises `invalid_argument` and `invalid_path`, naming the step."""
    if not isinstance(document, list):
        raise ServiceError("invalid_argument", "a JSON Patch is a list of operations")
    if len(document) > MAX_PATCH_OPERATIONS:
        raise ServiceError("invalid_argument", f"a JSON Patch has at most {MAX_PATCH_OPERATIONS} operations")
    steps: list[PatchStep] = []
    for index, members in enumerate(document):
        try:
            steps.append(_parse_step(members))
        except ServiceError as error:
            raise ServiceError(error.code, f"operation {index}: {error.message}") from error
    return tuple(steps)


def _parse_step(members: Json) -> PatchStep:
    if not isinstance(members, dict):
        raise ServiceError("invalid_argument", "not an object")
    path = _parse_step_pointer(members, "path")
    match members.get("op"):
        case "add" | "replace" | "test" as op:
            if "value" not in members:
                raise ServiceError("invalid_argument", "value is missing")
            return PatchStep(op, path, value=members["value"])
        case "move" | "copy" as op:
            return PatchStep(op, path, source=_parse_step_pointer(members, "from"))
        case "remove" as op:
            return PatchStep(op, path)
        case _:
            raise ServiceError("invalid_argument", "op is not add, remove, replace, move, copy or test")


def _parse_step_pointer(members: dict[str, Json], name: str) -> Pointer:
    text = members.get(name)
    if not isinstance(text, str):
        raise ServiceError("invalid_argument", f"{name} is missing or no string")
    return parse_pointer(text)


def json_patch(value: Json, steps: Sequence[PatchStep], *, max_bytes: int, budget: WorkBudget | None = None) -> Json:
    """`value` after all `steps`.

    Raises `patch_failed` with the index of the `step` that cannot be done, and `too_large` when the `budget` is used
    up or as soon as the parts copied sum up to more than `max_bytes`: a few dozen copies of the whole into itself
    would fill the memory.
    """
    patching = _Patching(max_bytes, WorkBudget() if budget is None else budget)
    for index, step in enumerate(steps):
        try:
            value = patching.apply(value, step)
        except ServiceError as refusal:
            if refusal.code in ("too_large", "invalid_json"):
                raise
            raise ServiceError(
                "patch_failed", f"operation {index}: {refusal.message}", details={"step": index}
            ) from refusal
    return value


class _Patching:
    """The steps of one JSON Patch, and what they may still cost."""

    def __init__(self, max_bytes: int, budget: WorkBudget) -> None:
        self._max_bytes = max_bytes
        self._bytes_to_copy = max_bytes
        self._budget = budget

    def apply(self, value: Json, step: PatchStep) -> Json:
        path = step.path
        self._budget.spend(STEP_WORK_BYTES)
        self._budget.follow(path, step.source)
        match step.op:
            case "add":
                return self._insert_at(value, path, _private(step.value))
            case "replace":
                get_at(value, path)
                return set_at(value, path, _private(step.value))
            case "remove":
                if not path:
                    raise ServiceError("patch_failed", "the whole value cannot be removed")
                return self._remove_at(value, path)
            case "move":
                return self._move(value, step.source, path)
            case "copy":
                return self._insert_at(value, path, self._copy(get_at(value, step.source)))
            case _:
                if not _equal(get_at(value, path), step.value):
                    raise ServiceError("patch_failed", "the value tested is another one")
                return value

    def _copy(self, part: Json) -> Json:
        copied = encode_bounded(part, max_bytes=self._max_bytes)
        self._bytes_to_copy -= len(copied)
        if self._bytes_to_copy < 0:
            raise _too_large(self._max_bytes)
        return decode(copied)

    def _insert_at(self, value: Json, path: Pointer, part: Json) -> Json:
        """`add` of RFC 6902: the container exists; an element goes before the one at its index, or (`-`) at the end."""
        if not path:
            return part
        *way, last = path
        container = get_at(value, tuple(way))
        if isinstance(container, dict):
            container[last] = part
            return value
        elements = _elements(container)
        index = len(elements) if last == "-" else _index(last)
        if index is None or index > len(elements):
            raise _path_not_found(path)
        self._budget.move_elements(len(elements) - index)
        elements.insert(index, part)
        return value

    def _remove_at(self, value: Json, path: Pointer) -> Json:
        *way, last = path
        container = get_at(value, tuple(way))
        if isinstance(container, list) and (index := _index(last)) is not None:
            self._budget.move_elements(max(len(container) - index, 0))
        return remove_at(value, path)

    def _move(self, value: Json, source: Pointer, path: Pointer) -> Json:
        part = get_at(value, source)
        if path == source:
            return value
        if path[: len(source)] == source:
            raise ServiceError("patch_failed", "a part cannot be moved into itself")
        return self._insert_at(self._remove_at(value, source), path, part)


def _private(part: Json) -> Json:
    """A copy for later steps to change, while the step keeps its own."""
    return decode(encode(part))


def _equal(left: Json, right: Json) -> bool:
    """Equality of JSON: 1 is 1.0 but not true, and members have no order. Recurses as deep as both nest."""
    # Python compares a hundred times as fast as the walk below, and differs from JSON only in that true is 1.
    if left != right:
        return False
    return not (_may_hold_booleans(left) or _may_hold_booleans(right)) or _have_same_booleans(left, right)


def _may_hold_booleans(value: Json) -> bool:
    text = encode(value)
    return b"true" in text or b"false" in text


def _have_same_booleans(left: Json, right: Json) -> bool:
    """Whether two values that Python finds equal have their booleans at the same places."""
    mine: list[Json] = [left]
    others: list[Json] = [right]
    while mine:
        if [type(part) is bool for part in mine] != [type(part) is bool for part in others]:
            return False
        pairs = [pair for pair in zip(mine, others, strict=True) if type(pair[0]) is list or type(pair[0]) is dict]
        mine, others = [], []
        for one, other in pairs:
            if isinstance(one, dict) and isinstance(other, dict):
                mine += one.values()
                others += map(other.__getitem__, one)
            elif isinstance(one, list) and isinstance(other, list):
                mine += one
                others += other
    return True
