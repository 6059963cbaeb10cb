"""`GET /kv?key=a&key=b`: several entries as of one moment, in the order of the request, without the missing ones."""

from contextlib import aclosing

from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.listed_entry import encoder_of
from leasehold.http.media_types import Media
from leasehold.http.pieces import GatheredList
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import BASE64, VALUES, flag_of, keys_of
from leasehold.http.routing.route import Service
from leasehold.limits import MAX_GATHERED_BYTES


async def several_entries(request: Request, service: Service) -> Response:
    for name in request.query:
        if name not in ("key", VALUES.name, BASE64.name):
            raise ServiceError("invalid_argument", f"{name} cannot be combined with key")
    keys, with_values = keys_of(request), flag_of(request, "values", default=True)
    for key in keys:
        request.principal.require_covered(key)
    found = GatheredList("entries", request.media, service.store.turn)
    with_base64 = flag_of(request, BASE64.name, default=False)
    shows_bytes = with_base64 or request.media is Media.MESSAGEPACK
    encoder = encoder_of(request.media, with_values=with_values, with_base64=with_base64)
    size = revision = 0
    async with service.store.gathering, aclosing(service.store.entries(keys)) as pages:
        async for page in pages:
            revision = page.revision
            size += sum(len(entry.value) for entry in page.records if entry.value or shows_bytes)
            if with_values and size > MAX_GATHERED_BYTES:
                raise ServiceError(
                    "too_large",
                    f"the values together are larger than {MAX_GATHERED_BYTES} bytes; ask for fewer keys",
                    details={"limit": MAX_GATHERED_BYTES},
                )
            await found.add(map(encoder, page.records))
        return found.response(revision, None)
