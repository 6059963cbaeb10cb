"""Namespaces: where one is in the address, and the requests that create, list and delete them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from leasehold_client.errors import InvalidArgument
from leasehold_client.records import NamespaceInfo
from leasehold_client.values import MISSING, Json, MissingType, parse_optional_time

from .entries import ACCEPT, DELETION_SECONDS
from .messages import JSON, Request, json_body, reading, target

DEFAULT: Final = "default"
"""It always exists, and has addresses without a namespace, too."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,63}")


def path(name: str) -> str:
    """What precedes a target in this namespace. Raises InvalidArgument for a name that no namespace can have."""
    return "" if name == DEFAULT else _address(name)


def _address(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"a namespace has 1 to 63 of the characters a to z, 0 to 9 and -, so not {name!r}")
    return f"/ns/{name}"


def create(name: str, *, max_entries: int | MissingType | None, max_bytes: int | MissingType | None) -> Request:
    """Create it, or change its quotas. What is MISSING is not sent, and stays as it is.

    As for a deletion, the service takes no idempotency key: a repetition makes no difference.
    """
    quotas = {"max_entries": max_entries, "max_bytes": max_bytes}
    given = {member: value for member, value in quotas.items() if value is not MISSING}
    if not given:
        return Request("PUT", _address(name), ACCEPT)
    return Request("PUT", _address(name), (*ACCEPT, ("Content-Type", JSON)), json_body(given))


def info(name: str) -> Request:
    return Request("GET", _address(name), ACCEPT)


def delete(name: str) -> Request:
    return Request("DELETE", _address(name), ACCEPT, work_seconds=DELETION_SECONDS)


def page(after: str | None, *, limit: int) -> Request:
    parameters = [("limit", str(limit)), *([] if after is None else [("after", after)])]
    return Request("GET", target("/ns", parameters), ACCEPT)


# Responses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NamespacePage:
    namespaces: Sequence[NamespaceInfo]
    next: str | None


@reading
def read_namespace(body: Mapping[str, Json]) -> NamespaceInfo:
    return _namespace_from(body)


@reading
def read_page(body: Mapping[str, Json]) -> NamespacePage:
    return NamespacePage([_namespace_from(each) for each in body["namespaces"]], body.get("next"))


def _namespace_from(body: Mapping[str, Json]) -> NamespaceInfo:
    return NamespaceInfo(
        body["namespace"],
        body["revision"],
        body["entries"],
        body["bytes"],
        body.get("max_entries"),
        body.get("max_bytes"),
        parse_optional_time(body.get("created_at")),
    )
