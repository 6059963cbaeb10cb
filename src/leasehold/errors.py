"""The error of the service, and the table from its codes to HTTP statuses.

    ServiceError     every error that is sent to a caller

To add an error, add its code to `ErrorCode` and a row to `STATUS_BY_CODE`. A `code` is stable and for programs; a
`message` is for people. Neither contains the text of another exception, SQL, a path of the server or a secret. The
exceptions of a library are translated where it is called (`raise ServiceError(...) from error`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    import msgspec

ErrorCode = Literal[
    "invalid_json",
    "invalid_key",
    "invalid_path",
    "invalid_argument",
    "invalid_request",
    "unauthenticated",
    "forbidden",
    "not_found",
    "path_not_found",
    "lock_not_found",
    "no_such_namespace",
    "no_such_route",
    "method_not_allowed",
    "not_acceptable",
    "request_timeout",
    "conflict",
    "lease_lost",
    "revision_compacted",
    "precondition_failed",
    "too_large",
    "uri_too_long",
    "unsupported_media_type",
    "range_not_satisfiable",
    "patch_failed",
    "idempotency_key_reused",
    "lock_held",
    "upgrade_required",
    "precondition_required",
    "too_many_requests",
    "headers_too_large",
    "internal",
    "not_implemented",
    "unavailable",
    "quota_exceeded",
    "storage_full",
]

STATUS_BY_CODE: Final[Mapping[ErrorCode, int]] = {
    "invalid_json": 400,
    "invalid_key": 400,
    "invalid_path": 400,
    "invalid_argument": 400,
    "invalid_request": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "path_not_found": 404,
    "lock_not_found": 404,
    "no_such_namespace": 404,
    "no_such_route": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "conflict": 409,
    "lease_lost": 409,
    "revision_compacted": 410,
    "precondition_failed": 412,
    "too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "patch_failed": 422,
    "idempotency_key_reused": 422,
    "lock_held": 423,
    "upgrade_required": 426,
    "precondition_required": 428,
    "too_many_requests": 429,
    "headers_too_large": 431,
    "internal": 500,
    "not_implemented": 501,
    "unavailable": 503,
    "quota_exceeded": 507,
    "storage_full": 507,
}

ErrorDetail: TypeAlias = "str | int | float | msgspec.Raw | list[dict[str, ErrorDetail]] | None"
"""Quoted, so that `leasehold --help` needs no msgspec."""


class ServiceError(Exception):
    """A refused or failed request, as the caller is told.

    `details` become members of the error body beside `error` and `message` (`revision`, `limit`, …). `headers` are
    added to the response (`Allow`, `Retry-After`, …). `status` defaults to the status of the code. `reason` appears in
    the log only and may say more than the caller is told. `is_outcome_unknown`: the change may have been stored;
    without it, it certainly was not.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        details: Mapping[str, ErrorDetail] | None = None,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
        reason: str | None = None,
        is_outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.status = STATUS_BY_CODE[code] if status is None else status
        self.message = message
        self.details: Mapping[str, ErrorDetail] = details or {}
        self.headers: Mapping[str, str] = headers or {}
        self.reason = code if reason is None else reason
        self.is_outcome_unknown = is_outcome_unknown


def not_found() -> ServiceError:
    return ServiceError("not_found", "key does not exist")


def no_such_namespace() -> ServiceError:
    return ServiceError("no_such_namespace", "there is no such namespace; PUT /ns/NAME creates one")


def not_implemented() -> ServiceError:
    return ServiceError("not_implemented", "the service does not support this method")


def internal(message: str) -> ServiceError:
    """An unforeseen failure. Raise it from the exception that caused it, or log that exception."""
    return ServiceError("internal", message)


def unavailable(message: str, *, retry_after_seconds: int = 1) -> ServiceError:
    return ServiceError("unavailable", message, headers={"Retry-After": str(retry_after_seconds)})


def shutting_down() -> ServiceError:
    return unavailable("the service is shutting down")


def outcome_unknown() -> ServiceError:
    """The error of a change whose commit failed in a way that leaves open whether it was stored."""
    return ServiceError(
        "unavailable",
        "the change may or may not have been stored",
        headers={"Retry-After": "1"},
        is_outcome_unknown=True,
    )
