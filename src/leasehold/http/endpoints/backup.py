"""The endpoint of backups: `GET /backup`."""

from leasehold.access.permissions import forbidden
from leasehold.http.messages import Request, Stream
from leasehold.http.negotiation import Media
from leasehold.http.routing.routes import Answer, AsyncEndpoint, Route, Service


async def backup(request: Request, service: Service) -> Stream:
    """Every entry as it is at one moment; for a token that may read them all."""
    if not request.principal.covers(""):
        raise forbidden("a backup is of all keys: it needs a token without prefixes", reason="not all keys are covered")
    return Stream(Media.JSON, service.store.backup())


ROUTES = (
    Route(
        "GET",
        "/backup",
        AsyncEndpoint(backup),
        "Every entry at one moment, in the layout of data.json, for `leasehold restore`",
        "read",
        (Answer(200, "The backup. Without the member `sha256` at its end it was cut off.", "Backup"),),
        ("too_many_requests",),
        offers=(Media.JSON,),
    ),
)
