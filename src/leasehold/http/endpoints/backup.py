"""`GET /backup`: all entries at one revision, in the layout of `data.json`."""

from leasehold.access.permissions import forbidden
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import Stream
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service


async def backup(request: Request, service: Service) -> Stream:
    """Only for a token that covers all keys."""
    if not request.principal.covers(""):
        raise forbidden(
            "a backup has all keys, so it needs a token without prefixes", reason="not all keys are covered"
        )
    return Stream(Media.JSON, service.store.backup())


ROUTES = (
    Route(
        "GET",
        "/backup",
        AsyncEndpoint(backup),
        "Get all entries at one revision, in the layout of data.json, for `leasehold restore`",
        "read",
        (
            DocumentedResponse(
                200, "The backup. If the member `sha256` at its end is missing, the backup is incomplete.", "Backup"
            ),
        ),
        ("too_many_requests",),
        offers=(Media.JSON,),
    ),
)
