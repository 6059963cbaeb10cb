"""The one error of the service, and the one table from its codes to HTTP statuses.

    ServiceError
      everything that a caller may be told; nothing else leaves the service

To add an error, add a row to `STATUS_BY_CODE`. A `code` is stable and meant for programs, a `message` for people;
neither ever carries the text of another exception, SQL, a path of the server or a secret. Errors of libraries are
translated once, where they enter (`raise ServiceError(...) from error`).
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
    "patch_failed",
    "lock_held",
    "upgrade_required",
    "precondition_required",
    "too_many_requests",
    "headers_too_large",
    "internal",
    "not_implemented",
    "unavailable",
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
    "patch_failed": 422,
    "lock_held": 423,
    "upgrade_required": 426,
    "precondition_required": 428,
    "too_many_requests": 429,
    "headers_too_large": 431,
    "internal": 500,
    "not_implemented": 501,
    "unavailable": 503,
    "storage_full": 507,
}

ErrorDetail: TypeAlias = "str | int | float | msgspec.Raw | None"
"""Quoted, so that `leasehold --help` needs no msgspec."""


class ServiceError(Exception):
    """What a caller is told when a request is refused or cannot be done.

    `details` become members of the error body beside `error` and `message` (`revision`, `limit`, …).
    `headers` go out with the response (`Allow`, `Retry-After`, …). `status` is the code's own unless it is given.
    `reason` is for the log alone, where it may say more than a caller should hear.
    `is_outcome_unknown`: the change may have been stored; without it, surely nothing was.
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


def not_implemented() -> ServiceError:
    return ServiceError("not_implemented", "no request of this service has this method")


def internal(message: str) -> ServiceError:
    """Something that nobody foresaw. Give it the exception as its cause, or log that."""
    return ServiceError("internal", message)


def unavailable(message: str, *, retry_after_seconds: int = 1) -> ServiceError:
    return ServiceError("unavailable", message, headers={"Retry-After": str(retry_after_seconds)})


def outcome_unknown() -> ServiceError:
    """Of a change whose commit failed so that nobody knows whether it was stored."""
    return ServiceError(
        "unavailable",
        "the change may or may not have been stored",
        headers={"Retry-After": "1"},
        is_outcome_unknown=True,
    )
