"""All exceptions of this package.

    LeaseholdError
    ├── Unreachable                     no response within the time for retries
    ├── UnexpectedResponse              a response that is not one of the service, for example of a proxy
    ├── TokenUnavailable                the caller's function could not supply a token
    └── ServiceError                    the service refused the request, or failed
        ├── BadRequest                  the request is wrong, whatever is stored
        │   ├── InvalidArgument         invalid_argument
        │   ├── InvalidJson             invalid_json
        │   ├── InvalidKey              invalid_key
        │   ├── InvalidPath             invalid_path
        │   ├── InvalidRequest          invalid_request
        │   ├── IdempotencyKeyReused    idempotency_key_reused
        │   ├── MethodNotAllowed        method_not_allowed
        │   ├── NoSuchNamespace         no_such_namespace
        │   ├── NoSuchRoute             no_such_route
        │   ├── NotAcceptable           not_acceptable
        │   ├── PreconditionRequired    precondition_required
        │   ├── RangeNotSatisfiable     range_not_satisfiable
        │   ├── TooLarge                too_large
        │   │   ├── HeadersTooLarge     headers_too_large
        │   │   └── UriTooLong          uri_too_long
        │   ├── UnsupportedMediaType    unsupported_media_type
        │   ├── UnsupportedMethod       not_implemented
        │   └── UpgradeRequired         upgrade_required
        ├── AccessDenied
        │   ├── Forbidden               forbidden
        │   └── Unauthenticated         unauthenticated
        ├── NotFound                    not_found
        │   ├── LockNotFound            lock_not_found
        │   └── PathNotFound            path_not_found
        ├── StateConflict               what is stored does not allow it
        │   ├── Conflict                conflict
        │   ├── LeaseLost               lease_lost
        │   ├── LockHeld                lock_held
        │   ├── PatchFailed             patch_failed
        │   ├── PreconditionFailed      precondition_failed
        │   ├── QuotaExceeded           quota_exceeded
        │   └── RevisionCompacted       revision_compacted
        └── ServiceFailure              the service could not do it now
            ├── InternalError           internal
            ├── RequestTimeout          request_timeout
            ├── StorageFull             storage_full
            ├── TooManyRequests         too_many_requests
            └── Unavailable             unavailable

To add an error of the service, add a class with its `code`, and a line above. A code without a class is raised as
`ServiceError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from .values import Json, parse_time


class LeaseholdError(Exception):
    """`message` is for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unreachable(LeaseholdError):
    """There was no complete response. If the request was a change, it may have been made."""


class UnexpectedResponse(LeaseholdError):
    """The response is not one of the service. If the request was a change, it may have been made.

    `status`: of HTTP; None if the status was right and the body was not.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TokenUnavailable(LeaseholdError):
    """The function that supplies tokens raised an exception, which is the cause of this one."""


class ServiceError(LeaseholdError):
    """`code` is for programs.

    `status`, `request_id` and `trace_id` are those of the response; they are None if the client found the error
    without a request. `details` are the other members of the body. `retry_after` is a number of seconds.
    """

    code: str = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.status = status
        self.request_id = request_id
        self.trace_id = trace_id
        self.retry_after = retry_after
        self.details: Mapping[str, Json] = {} if details is None else details

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class BadRequest(ServiceError):
    pass


class InvalidArgument(BadRequest):
    code = "invalid_argument"


class InvalidJson(BadRequest):
    code = "invalid_json"


class InvalidKey(BadRequest):
    code = "invalid_key"


class InvalidPath(BadRequest):
    code = "invalid_path"


class InvalidRequest(BadRequest):
    code = "invalid_request"


class IdempotencyKeyReused(BadRequest):
    code = "idempotency_key_reused"


class MethodNotAllowed(BadRequest):
    code = "method_not_allowed"


class NoSuchNamespace(BadRequest):
    code = "no_such_namespace"


class NoSuchRoute(BadRequest):
    code = "no_such_route"


class NotAcceptable(BadRequest):
    code = "not_acceptable"


class PreconditionRequired(BadRequest):
    code = "precondition_required"


class RangeNotSatisfiable(BadRequest):
    code = "range_not_satisfiable"


class TooLarge(BadRequest):
    code = "too_large"


class HeadersTooLarge(TooLarge):
    code = "headers_too_large"


class UriTooLong(TooLarge):
    code = "uri_too_long"


class UnsupportedMediaType(BadRequest):
    code = "unsupported_media_type"


class UnsupportedMethod(BadRequest):
    code = "not_implemented"


class UpgradeRequired(BadRequest):
    code = "upgrade_required"


class AccessDenied(ServiceError):
    pass


class Forbidden(AccessDenied):
    code = "forbidden"


class Unauthenticated(AccessDenied):
    code = "unauthenticated"


class NotFound(ServiceError):
    code = "not_found"


class LockNotFound(NotFound):
    code = "lock_not_found"


class PathNotFound(NotFound):
    code = "path_not_found"


class StateConflict(ServiceError):
    pass


class Conflict(StateConflict):
    code = "conflict"


class LeaseLost(StateConflict):
    """The lease is not alive, or may not be: its time is over by the clock of this process. Then `status` is None."""

    code = "lease_lost"


class LockHeld(StateConflict):
    """Another client holds the lock."""

    code = "lock_held"

    @property
    def owner(self) -> Json:
        """What the holder said about itself."""
        return self.details.get("owner")

    @property
    def expires_at(self) -> datetime | None:
        """When the lease of the holder ends, unless it is renewed."""
        text = self.details.get("expires_at")
        return parse_time(text) if isinstance(text, str) else None


class PatchFailed(StateConflict):
    code = "patch_failed"

    @property
    def step(self) -> int | None:
        """The operation of the patch that failed, from 0."""
        step = self.details.get("step")
        return step if isinstance(step, int) else None


class PreconditionFailed(StateConflict):
    code = "precondition_failed"

    @property
    def revision(self) -> int | None:
        """The current revision of the entry. None if there is no entry, or in a transaction."""
        revision = self.details.get("revision")
        return revision if isinstance(revision, int) else None

    @property
    def failed(self) -> Sequence[Mapping[str, Json]]:
        """The checks of a transaction that do not hold, as the service describes them."""
        failed = self.details.get("failed")
        return failed if isinstance(failed, list) else ()


class QuotaExceeded(StateConflict):
    """The write would take the namespace beyond its quota."""

    code = "quota_exceeded"

    @property
    def limit(self) -> int | None:
        """The quota: a number of entries or of bytes."""
        limit = self.details.get("limit")
        return limit if isinstance(limit, int) else None


class RevisionCompacted(StateConflict):
    """The service no longer knows the changes since the cursor of a watch."""

    code = "revision_compacted"

    @property
    def oldest(self) -> int | None:
        """A revision from which a watch can begin."""
        oldest = self.details.get("oldest")
        return oldest if isinstance(oldest, int) else None


class ServiceFailure(ServiceError):
    pass


class InternalError(ServiceFailure):
    code = "internal"


class RequestTimeout(ServiceFailure):
    code = "request_timeout"


class StorageFull(ServiceFailure):
    code = "storage_full"


class TooManyRequests(ServiceFailure):
    code = "too_many_requests"


class Unavailable(ServiceFailure):
    code = "unavailable"


def _classes_by_code(base: type[ServiceError]) -> dict[str, type[ServiceError]]:
    found = {base.code: base} if base.code else {}
    for each in base.__subclasses__():
        found |= _classes_by_code(each)
    return found


CLASS_BY_CODE: Final[Mapping[str, type[ServiceError]]] = _classes_by_code(ServiceError)
