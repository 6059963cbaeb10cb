"""Bodies of requests: JSON or MessagePack, as a checked value.

Readers raise `unsupported_media_type`, `invalid_json`, `too_large` and `invalid_argument`.

A large body is read in steps first (`Route.read_body`), each in an iteration of the event loop of its own. The readers
then take what was read.
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Final

from msgspec import UNSET

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.media_types import ACCEPT, Media, accepted_types, binary_type, content_type
from leasehold.http.requests import Request
from leasehold.model import Binary, Content, Json, Value

JSON_TYPES: Final = ("application/json", "application/x-www-form-urlencoded", "")
"""Content types of bodies that are read as JSON. curl sends the form type with `-d` by default."""
MAX_SHOWN_CHARACTERS: Final = 64
"""How much of a text from the client an error shows."""


def bodies_of(schema: str) -> Mapping[str, str]:
    """`Route.bodies` for a body that is JSON or MessagePack of this schema component."""
    return {Media.JSON.content_type: schema, Media.MESSAGEPACK.content_type: schema}


def is_messagepack(request: Request) -> bool:
    """Whether the body is MessagePack; otherwise it is JSON. Raises `unsupported_media_type` for any other type."""
    headers = request.headers
    sent = headers.content_type
    if sent is None:
        sent = headers.content_type = content_type(headers)
    if sent in JSON_TYPES:
        return False
    if sent == Media.MESSAGEPACK.content_type:
        return True
    raise ServiceError(
        "unsupported_media_type",
        "send the header Content-Type: application/json, or application/vnd.msgpack",
        headers=ACCEPT,
    )


def body_of_entry(request: Request, binary_types: Sequence[str]) -> Value:
    """The value in the body of a write: a checked, compact JSON text, or bytes. `binary_types`: those of bytes."""
    if request.value is not UNSET:
        return values.encode(_taken_value(request))
    if request.headers.content_type in JSON_TYPES:  # nearly always; it is set since an earlier request
        return values.parse_json(request.body, brackets=request.brackets)
    media = binary_type(request.headers, binary_types)
    if media is not None:
        return Binary(media, Content(request.body))
    _require_value(request, binary_types)
    if is_messagepack(request):
        return values.parse_messagepack(request.body, max_bytes=request.max_value_bytes)
    return values.parse_json(request.body, brackets=request.brackets)


def check_entry_head(binary_types: Sequence[str], request: Request) -> None:
    """Raise `unsupported_media_type` for a body that `body_of_entry` does not accept."""
    headers = request.headers
    if headers.content_type not in JSON_TYPES and binary_type(headers, binary_types) is None:
        _require_value(request, binary_types)


def _require_value(request: Request, binary_types: Sequence[str]) -> None:
    """Raise `unsupported_media_type` unless the body is JSON or MessagePack."""
    try:
        is_messagepack(request)
    except ServiceError as error:
        accepted = accepted_types(binary_types)
        headers = {**error.headers, "Accept": accepted}
        message = f"send the header Content-Type with one of {accepted}"
        if request.headers.content_type is None:  # not because of the type
            message = error.message
        raise ServiceError(error.code, message, headers=headers) from error


def entry_steps(binary_types: Sequence[str], request: Request) -> Generator[None]:
    """Read the body of a write in steps, unless it is bytes."""
    if binary_type(request.headers, binary_types) is None:
        yield from value_steps(request)


def value_steps(request: Request) -> Generator[None]:
    """Read a body that is JSON or MessagePack in steps."""
    if is_messagepack(request):
        steps = values.messagepack_value_steps(request.body, max_bytes=request.max_value_bytes)
        request.value = yield from steps
    else:
        yield from json_steps(request)


def json_steps(request: Request) -> Generator[None]:
    """Read a body that is JSON in steps."""
    request.value = yield from values.json_value_steps(request.body, brackets=request.brackets)


def json_value(request: Request) -> Json:
    """A body that is JSON as a checked value."""
    if request.value is not UNSET:
        return _taken_value(request)
    return values.parse_json_value(request.body, brackets=request.brackets)


def body_value(request: Request) -> Json:
    """The body as a checked value."""
    if request.value is not UNSET:
        return _taken_value(request)
    if is_messagepack(request):
        return values.parse_messagepack_value(request.body, max_bytes=request.max_value_bytes)
    return json_value(request)


def _taken_value(request: Request) -> Json:
    """The value that was read in steps. The request no longer refers to it: it may take fifty times its size."""
    value, request.value = request.value, UNSET
    assert value is not UNSET
    return value


def amount_of(sent: Json) -> int | float:
    """The number to add in an increment. Raises `invalid_argument`."""
    if isinstance(sent, bool) or not isinstance(sent, int | float):
        raise ServiceError("invalid_argument", "an increment adds a number")
    return sent


def members_of(body: Json, known: Collection[str]) -> dict[str, Json]:
    """The members of a body that must be an object and may have only the `known` members.

    Raises `invalid_argument`; the detail `member` is the first unknown member.
    """
    if not isinstance(body, dict):
        raise ServiceError("invalid_argument", _expected(known))
    for name in body:
        if name not in known:
            shown = name[:MAX_SHOWN_CHARACTERS]
            message = f'unknown member "{shown}"; {_expected(known)}'
            raise ServiceError("invalid_argument", message, details={"member": shown})
    return body


def _expected(known: Collection[str]) -> str:
    return f"the body is an object with the members {', '.join(known)}"
