"""`POST /txn`: several checks and operations, all or nothing, at one revision (docs/transactions.md)."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from leasehold import values
from leasehold.access.permissions import Principal
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media, is_allowed
from leasehold.http.redaction import may_read
from leasehold.http.requests import Request
from leasehold.http.responses import Response, encoded_response
from leasehold.http.routing.bodies import (
    MAX_SHOWN_CHARACTERS,
    amount_of,
    bodies_of,
    body_value,
    is_messagepack,
    members_of,
    value_steps,
)
from leasehold.http.routing.parameters import BASE64, CURRENT, entry_ttl, flag_of
from leasehold.http.routing.preconditions import FENCE, if_lease_of, parse_lease_id, refuse_conditions
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.keys import check_key
from leasehold.limits import MAX_INTEGER, MAX_TRANSACTION_CHECKS, MAX_TRANSACTION_OPERATIONS
from leasehold.model import (
    Binary,
    Check,
    Committed,
    Delete,
    Deleted,
    EntryOperation,
    ExistenceCheck,
    Found,
    Increment,
    Json,
    JsonPatch,
    LeaseCheck,
    MergePatch,
    Missing,
    Outcome,
    Pointer,
    Put,
    Read,
    RevisionCheck,
    Transaction,
    Ttl,
    ValueCheck,
    Written,
)
from leasehold.values.entry_text import (
    entry_json,
    entry_json_with_base64,
    entry_messagepack_pieces,
    partial_entry_json,
    receipt_json,
)
from leasehold.values.steps import Encoded, joined

T = TypeVar("T")
Members = Mapping[str, Json]


def transact(binary_types: Sequence[str], request: Request) -> Transaction:
    flag_of(request, BASE64.name, default=False)  # a wrong one is refused before anything is done
    refuse_conditions(request, "conditions of a transaction are in the member if")
    body = members_of(body_value(request), ("if", "do"))
    checks = _each(body.get("if"), "if", MAX_TRANSACTION_CHECKS, _check)
    operations = _each(body.get("do"), "do", MAX_TRANSACTION_OPERATIONS, partial(_operation, binary_types))
    if not operations:
        raise _wrong("do is a list of at least one operation")
    _check_that_keys_are_written_once(operations)
    transaction = Transaction(checks, operations, if_lease_of(request), flag_of(request, "current", default=False))
    _require_permissions(request.principal, transaction)
    return transaction


def _require_permissions(principal: Principal, transaction: Transaction) -> None:
    """Raise `forbidden` unless the token has the permissions that the checks and operations need."""
    operations = transaction.operations
    if any(map(_shows_stored_value, (*transaction.checks, *operations))) or transaction.shows_current:
        principal.require_permission("read")
    if not all(isinstance(each, Read) for each in operations):
        principal.require_permission("write")


def _shows_stored_value(asked: Check | EntryOperation | Read) -> bool:
    """Whether the result shows a stored value, or whether it is equal to another one."""
    if isinstance(asked, JsonPatch):
        return any(step.op == "test" for step in asked.steps)
    return isinstance(asked, Read | ValueCheck)


def _check_that_keys_are_written_once(operations: Collection[EntryOperation | Read]) -> None:
    written: set[str] = set()
    for index, operation in enumerate(operations):
        if isinstance(operation, Read):
            continue
        if operation.key in written:
            raise ServiceError(
                "invalid_argument",
                f"operation {index}: a transaction writes each key at most once",
                details={"index": index, "key": operation.key},
            )
        written.add(operation.key)


# Reading the body ---------------------------------------------------------------------------------------------


def _each(items: Json, name: str, most: int, parse: Callable[[Members], T]) -> tuple[T, ...]:
    """The items of a list in the body, each read by `parse`. An error says which item it is about."""
    if items is None:
        return ()
    if not isinstance(items, list):
        raise _wrong(f"{name} is a list")
    if len(items) > most:
        raise ServiceError("invalid_argument", f"{name} has at most {most} items", details={"limit": most})
    parsed: list[T] = []
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise _wrong("not an object")
            parsed.append(parse(item))
        except ServiceError as error:
            place = {"index": index} if name == "do" else {}
            noun = "operation" if name == "do" else "check"
            raise ServiceError(
                error.code, f"{noun} {index}: {error.message}", details={**error.details, **place}
            ) from error
    return tuple(parsed)


def _check(members: Members) -> Check:
    if "lease" in members:
        _refuse_others(members, ("lease",))
        return LeaseCheck(parse_lease_id(members["lease"]))
    key = _key(members)
    if "revision" in members:
        _refuse_others(members, ("key", "revision"))
        return RevisionCheck(key, _revision(members["revision"]))
    if "exists" in members:
        _refuse_others(members, ("key", "exists"))
        if not isinstance(members["exists"], bool):
            raise _wrong("exists is true or false")
        return ExistenceCheck(key) if members["exists"] else RevisionCheck(key, None)
    if "value" in members:
        _refuse_others(members, ("key", "path", "value"))
        return ValueCheck(key, _path(members) or (), members["value"])
    raise _wrong("a check has revision, exists, value or lease")


def _revision(sent: Json) -> int | None:
    if sent is None or (isinstance(sent, int) and not isinstance(sent, bool) and 0 <= sent <= MAX_INTEGER):
        return sent
    raise _wrong("revision is an integer, or null for a key that does not exist")


def _operation(binary_types: Sequence[str], members: Members) -> EntryOperation | Read:
    op = members.get("op")
    if op == "put" and "base64" in members:
        return _put_bytes(members, binary_types)
    read = _OPERATIONS.get(op) if isinstance(op, str) else None
    if read is None:
        raise _wrong(f"op is one of {', '.join(_OPERATIONS)}")
    return read(members)


def _put(members: Members) -> Put:
    _refuse_others(members, ("op", "key", "value", "path", "ttl"))
    return Put(_key(members), values.encode(_required(members, "value")), _path(members), _ttl(members))


def _put_bytes(members: Members, binary_types: Sequence[str]) -> Put:
    _refuse_others(members, ("op", "key", "base64", "media", "ttl"))
    sent, text = members.get("media"), members["base64"]
    if sent is None:
        sent = Media.BYTES.content_type
    media = values.parse_media_type(sent) if isinstance(sent, str) else None
    if media is None or not is_allowed(media, binary_types):
        raise _wrong(f"media is one of {', '.join(binary_types)}")
    try:
        data = values.from_base64(text) if isinstance(text, str) else None
    except ValueError:
        data = None
    if data is None:
        raise _wrong("base64 is a string in base64, with padding and without line breaks")
    return Put(_key(members), Binary(media, data), None, _ttl(members))


def _increment(members: Members) -> Increment:
    _refuse_others(members, ("op", "key", "value", "path", "ttl"))
    return Increment(_key(members), amount_of(_required(members, "value")), _path(members) or (), _ttl(members))


def _merge(members: Members) -> MergePatch:
    _refuse_others(members, ("op", "key", "value", "ttl"))
    return MergePatch(_key(members), _required(members, "value"), _ttl(members))


def _patch(members: Members) -> JsonPatch:
    _refuse_others(members, ("op", "key", "patch", "ttl"))
    return JsonPatch(_key(members), values.parse_json_patch(_required(members, "patch")), _ttl(members))


def _delete(members: Members) -> Delete:
    _refuse_others(members, ("op", "key"))
    return Delete(_key(members))


def _get(members: Members) -> Read:
    _refuse_others(members, ("op", "key"))
    return Read(_key(members))


_OPERATIONS: Final[Mapping[str, Callable[[Members], EntryOperation | Read]]] = {
    "put": _put,
    "increment": _increment,
    "merge": _merge,
    "patch": _patch,
    "delete": _delete,
    "get": _get,
}


def _key(members: Members) -> str:
    key = _required(members, "key")
    if not isinstance(key, str):
        raise ServiceError("invalid_key", "the key is not a string")
    check_key(key)
    return key


def _path(members: Members) -> Pointer | None:
    path = members.get("path")
    if path is None:
        return None
    if not isinstance(path, str):
        raise ServiceError("invalid_path", "path is a JSON Pointer")
    return values.parse_pointer(path)


def _ttl(members: Members) -> Ttl:
    return entry_ttl(members.get("ttl"))


def _required(members: Members, name: str) -> Json:
    if name not in members:
        raise ServiceError("invalid_argument", f"{name} is missing", details={"member": name})
    return members[name]


def _refuse_others(members: Members, known: Collection[str]) -> None:
    for name in members:
        if name not in known:
            shown = name[:MAX_SHOWN_CHARACTERS]
            raise ServiceError(
                "invalid_argument",
                f'unknown member "{shown}"; there may be {", ".join(known)}',
                details={"member": shown},
            )


def _wrong(message: str) -> ServiceError:
    return ServiceError("invalid_argument", message)


# The response -------------------------------------------------------------------------------------------------


def show_committed(request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Committed)
    shows_all = may_read(request.principal)
    with_base64 = flag_of(request, BASE64.name, default=False)
    texts = [_result_json(result, shows_all=shows_all, with_base64=with_base64) for result in outcome.results]
    if request.media is Media.MESSAGEPACK and any(map(_shows_bytes, outcome.results)):
        return encoded_response(joined(_packed(outcome, texts)), is_packed=True)
    return encoded_response(joined(_listed(outcome, texts)))


def _shows_bytes(result: Written | Deleted | Found | Missing) -> bool:
    return isinstance(result, Found) and isinstance(result.entry.value, Binary)


def _listed(outcome: Committed, texts: Sequence[Encoded]) -> Iterator[Encoded]:
    """The response as JSON. `texts`: the results."""
    yield b'{"revision":%d,"results":[' % outcome.revision
    for number, text in enumerate(texts):
        if number:
            yield b",\n"
        yield text
    yield b"]}"


def _packed(outcome: Committed, texts: Sequence[Encoded]) -> Iterator[Encoded]:
    """The response as MessagePack, which shows the values that are bytes. `texts`: the results as JSON."""
    pack = msgspec.msgpack.encode
    yield b"\x82" + pack("revision") + pack(outcome.revision) + pack("results")
    yield b"\xdc" + len(texts).to_bytes(2, "big")
    for result, text in zip(outcome.results, texts, strict=True):
        if isinstance(result, Found):
            yield entry_messagepack_pieces(result.entry)
        else:
            assert isinstance(text, bytes)
            yield values.to_messagepack(text)


def _result_json(result: Written | Deleted | Found | Missing, *, shows_all: bool, with_base64: bool) -> Encoded:
    """A write is shown without its value, which the caller has sent; an increment with the sum."""
    if isinstance(result, Written):
        path = None if result.path is None else values.format_pointer(result.path)
        if not shows_all:
            return receipt_json(result.entry, path=path)
        return partial_entry_json(result.entry, value=result.part, path=path)
    if isinstance(result, Found):
        return entry_json_with_base64(result.entry) if with_base64 else entry_json(result.entry)
    if isinstance(result, Missing):
        return msgspec.json.encode({"key": result.key, "revision": None})
    return msgspec.json.encode({"key": result.key, "deleted": True, "revision": result.revision})


def routes(binary_types: Sequence[str]) -> tuple[Route, ...]:
    """`binary_types`: the media types of bytes that may be stored, in lower case."""
    return (_route(binary_types),)


def _route(binary_types: Sequence[str]) -> Route:
    return Route(
        "POST",
        "/txn",
        PureEndpoint(partial(transact, binary_types), show_committed),
        "Do several operations, all or none, if all checks hold",
        "any",
        (DocumentedResponse(200, "Done.", "TransactionDone"),),
        (
            "invalid_argument",
            "invalid_key",
            "invalid_path",
            "not_found",
            "path_not_found",
            "conflict",
            "precondition_failed",
            "too_large",
            "unsupported_media_type",
            "patch_failed",
            "storage_full",
        ),
        (CURRENT, BASE64, FENCE),
        bodies_of("Transaction"),
        check_head=is_messagepack,
        read_body=value_steps,
    )
