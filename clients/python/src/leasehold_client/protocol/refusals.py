"""Which exception a response is."""

from __future__ import annotations

from typing import Final

from leasehold_client.errors import CLASS_BY_CODE, LeaseholdError, ServiceError, UnexpectedResponse
from leasehold_client.values import decode_object

from .messages import Response

MEMBERS_OF_EVERY_ERROR: Final = frozenset({"error", "message", "request_id", "trace_id"})


def refusal_of(response: Response) -> LeaseholdError:
    """The exception for a response with a status of 400 or more, for a redirect, or for a status that cannot be."""
    if 300 <= response.status < 400 and "location" in response.headers:
        to = response.headers["location"]
        message = f"HTTP {response.status} redirects to {to}, and redirects are not followed; is the URL right?"
        return UnexpectedResponse(message, status=response.status)
    try:
        body = decode_object(response.content)
        code, message = body["error"], body["message"]
    except (ValueError, KeyError):
        message = f"HTTP {response.status} is not a response of the service; is a proxy in between?"
        return UnexpectedResponse(message, status=response.status)
    return CLASS_BY_CODE.get(code, ServiceError)(
        message,
        code=code,
        status=response.status,
        request_id=body.get("request_id"),
        trace_id=body.get("trace_id"),
        retry_after=retry_after(response),
        details={name: body[name] for name in body.keys() - MEMBERS_OF_EVERY_ERROR},
    )


def retry_after(response: Response) -> float | None:
    """The seconds in `Retry-After`. A date, which the service does not send, counts as absent."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None
