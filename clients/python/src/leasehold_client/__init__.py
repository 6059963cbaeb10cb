"""A client of Leasehold, a durable JSON key-value store over HTTP with locks that it enforces on writes.

    from leasehold_client import Client

    with Client("http://127.0.0.1:8080") as db:
        db.put("users/ann", {"age": 41})
        with db.lock("jobs/nightly", ttl=30) as lease:
            lease.put("report", "done")

`AsyncClient` is the same with `await`, `async with` and `async for`. The layout of the package:

    _async/           the asynchronous client
    _sync/            the synchronous client, made from `_async` by `tools/make_sync.py`
    protocol/         what both share: pure functions that build requests and read responses
    errors.py         all exceptions, in one tree
    records.py        what the service returns
    values.py         JSON
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from ._sync.client import Client
from ._sync.leases import Lease
from ._sync.locking import HeldLock
from ._sync.namespace import Namespace
from ._sync.transactions import Transaction
from ._sync.watching import Watch
from ._sync.writes import Writes
from .errors import (
    AccessDenied,
    BadRequest,
    Conflict,
    Forbidden,
    HeadersTooLarge,
    IdempotencyKeyReused,
    InternalError,
    InvalidArgument,
    InvalidJson,
    InvalidKey,
    InvalidPath,
    InvalidRequest,
    LeaseholdError,
    LeaseLost,
    LockHeld,
    LockNotFound,
    MethodNotAllowed,
    NoSuchNamespace,
    NoSuchRoute,
    NotAcceptable,
    NotFound,
    PatchFailed,
    PathNotFound,
    PreconditionFailed,
    PreconditionRequired,
    QuotaExceeded,
    RangeNotSatisfiable,
    RequestTimeout,
    RevisionCompacted,
    ServiceError,
    ServiceFailure,
    StateConflict,
    StorageFull,
    TokenUnavailable,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnexpectedResponse,
    Unreachable,
    UnsupportedMediaType,
    UnsupportedMethod,
    UpgradeRequired,
    UriTooLong,
)
from .protocol.messages import Request, Response
from .records import (
    Deletion,
    Entry,
    EntryDeleted,
    EntryPut,
    Event,
    Holder,
    LockChanged,
    NamespaceInfo,
    Ready,
    Reset,
)
from .values import Json

if TYPE_CHECKING:
    from ._async.client import AsyncClient
    from ._async.leases import AsyncLease
    from ._async.locking import AsyncHeldLock
    from ._async.namespace import AsyncNamespace
    from ._async.transactions import AsyncTransaction
    from ._async.watching import AsyncWatch
    from ._async.writes import AsyncWrites

__version__: Final = "0.2.0"

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "AsyncHeldLock",
    "AsyncLease",
    "AsyncNamespace",
    "AsyncTransaction",
    "AsyncWatch",
    "AsyncWrites",
    "BadRequest",
    "Client",
    "Conflict",
    "Deletion",
    "Entry",
    "EntryDeleted",
    "EntryPut",
    "Event",
    "Forbidden",
    "HeadersTooLarge",
    "HeldLock",
    "Holder",
    "IdempotencyKeyReused",
    "InternalError",
    "InvalidArgument",
    "InvalidJson",
    "InvalidKey",
    "InvalidPath",
    "InvalidRequest",
    "Json",
    "Lease",
    "LeaseLost",
    "LeaseholdError",
    "LockChanged",
    "LockHeld",
    "LockNotFound",
    "MethodNotAllowed",
    "Namespace",
    "NamespaceInfo",
    "NoSuchNamespace",
    "NoSuchRoute",
    "NotAcceptable",
    "NotFound",
    "PatchFailed",
    "PathNotFound",
    "PreconditionFailed",
    "PreconditionRequired",
    "QuotaExceeded",
    "RangeNotSatisfiable",
    "Ready",
    "Request",
    "RequestTimeout",
    "Reset",
    "Response",
    "RevisionCompacted",
    "ServiceError",
    "ServiceFailure",
    "StateConflict",
    "StorageFull",
    "TokenUnavailable",
    "TooLarge",
    "TooManyRequests",
    "Transaction",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedResponse",
    "Unreachable",
    "UnsupportedMediaType",
    "UnsupportedMethod",
    "UpgradeRequired",
    "UriTooLong",
    "Watch",
    "Writes",
]

_ASYNCHRONOUS: Final = {
    "AsyncClient": "client",
    "AsyncHeldLock": "locking",
    "AsyncLease": "leases",
    "AsyncNamespace": "namespace",
    "AsyncTransaction": "transactions",
    "AsyncWatch": "watching",
    "AsyncWrites": "writes",
}
"""The modules of `_async`. They are imported at their first use: asyncio takes a third of the time of all imports."""


def __getattr__(name: str) -> object:
    if name not in _ASYNCHRONOUS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"._async.{_ASYNCHRONOUS[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *_ASYNCHRONOUS]
