"""The Authorization header: Basic authentication as a bearer token, and the error for a missing or bad token.

It is apart from `token_verification.py`, which imports PyJWT. A service without tokens does not need it.
"""

from base64 import b64decode

from leasehold.errors import ServiceError


def bearer_of_basic(authorization: bytes) -> bytes | None:
    """The Authorization header with the password of Basic authentication (RFC 7617) as a bearer token.

    None if the header has another scheme, or is not well-formed. The name of the user is ignored.
    """
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        _, colon, password = b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return b"Bearer " + password if colon else None


def unauthenticated(reason: str, *, takes_basic: bool = False) -> ServiceError:
    """The same error for every fault. `reason`: for the log. `takes_basic`: the route takes Basic authentication."""
    challenge = 'Bearer, Basic realm="leasehold"' if takes_basic else "Bearer"
    return ServiceError(
        "unauthenticated", "a valid bearer token is needed", headers={"WWW-Authenticate": challenge}, reason=reason
    )
