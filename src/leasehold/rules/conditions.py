"""If-Match and If-None-Match (RFC 9110, section 13): whether the entry has a revision that the caller asks for."""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.model import Condition, Entry, Tags


def check(condition: Condition, entry: Entry | None, incarnation: str) -> None:
    """If-Match and If-None-Match of a change (RFC 9110, section 13.2.2)."""
    check_match(condition, entry, incarnation)
    if condition.if_none_match is not None and matches(condition.if_none_match, entry, incarnation):
        raise _precondition_failed(entry, incarnation)


def check_match(condition: Condition, entry: Entry | None, incarnation: str) -> None:
    if condition.if_match is None or matches(condition.if_match, entry, incarnation):
        return
    if entry is not None and matches(condition.changed, entry, incarnation):
        raise _precondition_failed(entry, incarnation, reason=_CHANGED_TAG)
    raise _precondition_failed(entry, incarnation)


def matches(wanted: Tags, entry: Entry | None, incarnation: str) -> bool:
    """Whether `entry` has one of the `wanted` tags. A revision without an incarnation matches in any."""
    if entry is None:
        return False
    return wanted == "*" or entry.revision in wanted or (entry.revision, incarnation) in wanted


_CHANGED_TAG: Final = (
    "a proxy that compresses has changed the ETag, so it no longer matches: switch off compression in the proxy, or "
    "send the revision alone as the tag"
)


def _precondition_failed(
    entry: Entry | None, incarnation: str, *, reason: str = "the entry is at another revision"
) -> ServiceError:
    if entry is None:
        return ServiceError("precondition_failed", "key does not exist", details={"revision": None})
    return ServiceError(
        "precondition_failed",
        reason,
        details={"revision": entry.revision},
        headers={"ETag": f'"{entry.revision}.{incarnation}"'},
    )


def names_revisions(condition: Condition | None) -> bool:
    """Whether the condition names revisions. Then the change cannot be done twice, because it makes a new revision."""
    return condition is not None and condition.if_match not in (None, "*")
