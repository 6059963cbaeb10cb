"""The names of namespaces. A namespace has its own entries, locks, revision and history."""

import re
from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import MAX_NAMESPACE_CHARACTERS

DEFAULT_NAMESPACE: Final = "default"
"""It always exists. Requests whose path names no namespace are for this one."""
ALL_NAMESPACES: Final = "*"
"""In the claim `namespaces` of a token: all of them."""

_NAME: Final = re.compile(rf"[a-z0-9-]{{1,{MAX_NAMESPACE_CHARACTERS}}}")


def is_valid_namespace(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_deletable(name: str) -> None:
    """Raise `invalid_argument` for `default`."""
    if name == DEFAULT_NAMESPACE:
        raise ServiceError("invalid_argument", "the namespace default cannot be deleted")


def check_namespace(name: str) -> None:
    """Raise `invalid_argument` unless it may be the name of a namespace."""
    if not is_valid_namespace(name):
        raise ServiceError(
            "invalid_argument",
            f"the name of a namespace has 1 to {MAX_NAMESPACE_CHARACTERS} characters: a to z, 0 to 9 and -",
        )
