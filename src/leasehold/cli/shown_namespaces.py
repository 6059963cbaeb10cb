"""Namespaces as rows of a table."""

import msgspec
from msgspec import Raw

from leasehold.cli.output import shown_time
from leasehold.cli.pages import decoded


class Shown(msgspec.Struct, frozen=True):
    """The members of a namespace that a table shows."""

    namespace: str
    revision: int
    entries: int
    bytes: int
    max_entries: int | None
    max_bytes: int | None
    created_at: str


class Page(msgspec.Struct, frozen=True):
    namespaces: tuple[Raw, ...]
    next: str | None = None


def page_of(content: bytes) -> Page:
    """A page of `GET /ns`. Raises CommandFailed."""
    return decoded(content, Page)


def parsed(text: bytes | Raw) -> Shown:
    """A namespace as the service sends it. Raises CommandFailed."""
    return decoded(text, Shown)


def row(text: bytes | Raw) -> tuple[str, ...]:
    shown = parsed(text)
    quotas = ["" if each is None else str(each) for each in (shown.max_entries, shown.max_bytes)]
    used = (str(shown.entries), quotas[0], str(shown.bytes), quotas[1])
    return (shown.namespace, *used, str(shown.revision), shown_time(shown.created_at))
