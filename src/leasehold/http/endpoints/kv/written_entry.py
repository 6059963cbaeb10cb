"""The response of a write of an entry: POST, PUT and PATCH of `/kv/{key}`, and `/set`.

A caller without the permission `read` gets a receipt that shows nothing of what was stored before (`redaction.py`).
"""

from leasehold import values
from leasehold.http.redaction import may_read
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import is_key_only, wants_minimal
from leasehold.model import Outcome, Written
from leasehold.values.entry_text import entry_json, partial_entry_json, receipt_json


def show_written(request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Written)
    if not outcome.created and is_key_only(request) and may_read(request.principal):
        return Response(200, entry_json(outcome.entry), outcome.entry.revision)
    location = request.path.decode("ascii") if outcome.created else None
    return written_response(request, outcome, location=location)


def written_response(request: Request, written: Written, *, location: str | None) -> Response:
    """201 or 200 with the entry, the written part, or neither. `location`: the path of the entry, if it is new."""
    entry = written.entry
    headers: tuple[tuple[str, str], ...] = () if location is None else (("Location", location),)
    path = None if written.path is None else values.format_pointer(written.path)
    is_minimal = wants_minimal(request)
    if is_minimal:
        headers += (("Preference-Applied", "return=minimal"),)
    if not may_read(request.principal):
        body = receipt_json(entry, path=path)
    elif is_minimal:
        body = partial_entry_json(entry, value=None, path=path)
    elif written.part is not None:
        body = partial_entry_json(entry, value=written.part, path=path)
    else:
        body = entry_json(entry)
    return Response(201 if written.created else 200, body, entry.revision, headers=headers)
