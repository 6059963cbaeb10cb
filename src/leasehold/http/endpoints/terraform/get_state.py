"""`GET /terraform/{state}`: the state, byte by byte as it was saved, or an earlier version of it."""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.endpoints.terraform.state_requests import TTL, state_key_of
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.preconditions import CONDITIONS, condition_of, refuse_conditions
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Parameter, Route, Service
from leasehold.model import Binary, Entry, Found, NotModified, Read
from leasehold.rules.terraform import version_key

_MAX_DIGITS: Final = 18
_VERSION: Final = Parameter(
    "version",
    "The revision at which the state was saved, as `/terraform/{state}/versions` lists it.",
    {"type": "integer", "minimum": 1},
)


async def get_state(request: Request, service: Service) -> Response:
    key = state_key_of(request)
    request.principal.require_covered(key)
    version = _version_of(request)
    if version is not None:
        refuse_conditions(request, "a version does not change")
        return _shown(request, await _fetch_version(service, key, version), version)
    outcome = await service.store.fetch(Read(key, condition=condition_of(request, tag=Media.BYTES.tag)))
    if isinstance(outcome, NotModified):
        request.media = Media.BYTES
        return Response(304, None, outcome.revision)
    assert isinstance(outcome, Found)
    return _shown(request, outcome.entry, outcome.entry.revision)


async def _fetch_version(service: Service, key: str, version: int) -> Entry:
    """Raises `not_found`."""
    # The current state first: if it is another version, the wanted one is among the earlier ones already, or it never
    # will be.
    try:
        current = await service.store.fetch(Read(key))
    except ServiceError as error:
        if error.code != "not_found":
            raise
    else:
        assert isinstance(current, Found)
        if current.entry.revision == version:
            return current.entry
    earlier = await service.store.fetch(Read(version_key(key, version)))
    assert isinstance(earlier, Found)
    return earlier.entry


def _shown(request: Request, entry: Entry, version: int) -> Response:
    """The text as it is. As a JSON response it would get a newline at its end."""
    request.media = Media.BYTES
    value = entry.value
    text = value.data if isinstance(value, Binary) else value
    return Response(200, text, version, content_type=Media.JSON.content_type)


def _version_of(request: Request) -> int | None:
    sent = request.query.get("version")
    if sent is None:
        return None
    text = sent[0]
    version = int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0
    if version < 1:
        raise ServiceError("invalid_argument", "version is an integer, 1 or greater")
    return version


ROUTE = Route(
    "GET",
    "/terraform/{state}",
    AsyncEndpoint(get_state),
    "Get a Terraform state, byte by byte as it was saved",
    "read",
    (
        DocumentedResponse(200, "The state.", "TerraformState", etag=True),
        DocumentedResponse(304, "The client already has this version.", None, etag=True),
    ),
    ("not_found", "precondition_failed"),
    (_VERSION, TTL, *CONDITIONS),
    body_limit="max_state_bytes",
    takes_basic=True,
    offers=(Media.JSON,),
)
