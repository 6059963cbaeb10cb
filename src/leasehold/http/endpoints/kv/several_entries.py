"""`GET /kv?key=a&key=b`: several entries as of one moment, in the order of the request, without the missing ones."""

from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.listed_entry import encoder_of
from leasehold.http.messages import GatheredList, Request, Response
from leasehold.http.routing.parameters import VALUES, flag_of, keys_of
from leasehold.http.routing.route import Service
from leasehold.limits import MAX_GATHERED_BYTES


async def several_entries(request: Request, service: Service) -> Response:
    for name in request.query:
        if name not in ("key", VALUES.name):
            raise ServiceError("invalid_argument", f"{name} cannot be combined with key")
    keys, with_values = keys_of(request), flag_of(request, "values", default=True)
    for key in keys:
        request.principal.require_covered(key)
    page = await service.store.entries(keys)
    if with_values and sum(len(entry.value) for entry in page.records) > MAX_GATHERED_BYTES:
        raise ServiceError(
            "too_large",
            f"the values together are larger than {MAX_GATHERED_BYTES} bytes; ask for fewer keys",
            details={"limit": MAX_GATHERED_BYTES},
        )
    found = GatheredList("entries", request.media)
    await found.add(map(encoder_of(request.media, with_values=with_values), page.records))
    return found.response(page.revision, None)
