"""Recognizes the stores on PostgreSQL, and shows their connection strings without secrets."""

import re
from typing import Final
from urllib.parse import unquote

from leasehold.engines.postgres.parameters import LIBPQ, SCHEMES, SECRETS, names_postgres

_MASK: Final = "***"
_SHOWN: Final = LIBPQ - SECRETS | {"search_path", "database"}
"""Parameters whose values may be shown."""
_URL: Final = re.compile(r"[a-z]+://", re.IGNORECASE)
_HOST: Final = r"(?:\[[^\]@/?]*\]|[^:,@/?\[\]]*)(?::[0-9]*)?"
_PLACE: Final = rf"{_HOST}(?:,{_HOST})*(?:/[^?@]*)?"
_WELL_FORMED: Final = re.compile(
    rf"(?:(?P<user>[^:@/?]*)(?P<password>:[^@/?]*)?@)?(?P<place>{_PLACE})(?:\?(?P<query>[^@?]*))?"
)
_UNESCAPED: Final = re.compile(rf"(?P<user>[^:@/?=&]*):[^=]*@(?P<place>{_PLACE})")
"""A URL whose password contains an unescaped @, slash or question mark. With a = its parts could not be told apart."""
_OTHER_SPELLING: Final = re.compile(
    r"jdbc:|[a-z0-9+]*(?:postgres|postgis|pgsql|psycopg|asyncpg)[a-z0-9+]*:", re.IGNORECASE
)
_NO_SCHEME: Final = re.compile(r"[^/\s@:]+:[^\s@]*@\S+")


def is_postgres(store: str) -> bool:
    """Whether `store` is a URL of PostgreSQL, in any case, or a list like `host=… password=…`."""
    scheme, separator, _ = store.partition("://")
    return (bool(separator) and scheme.lower() in SCHEMES) or names_postgres(store)


def looks_like_postgres(store: str) -> bool:
    """Whether `store` is meant for PostgreSQL but in another form: that of another library, or without the scheme.

    Such a store must be refused and never shown, because it may contain a password.
    """
    return _OTHER_SPELLING.match(store) is not None or _NO_SCHEME.fullmatch(store) is not None


def shown_url(store: str) -> str:
    """`store` without its secrets, for people and logs. A store that is not on PostgreSQL is returned unchanged."""
    if not is_postgres(store):
        return store
    start = _URL.match(store)
    if start is None:
        return "postgresql://" + _MASK
    scheme, rest = start[0], store[start.end() :]
    parts = _WELL_FORMED.fullmatch(rest)
    query = None if parts is None else _shown_query(parts["query"])
    if parts is not None and query is not None:
        password = f":{_MASK}" if parts["password"] else ""
        user = "" if parts["user"] is None else f"{parts['user']}{password}@"
        return f"{scheme}{user}{parts['place']}{query}"
    unescaped = _UNESCAPED.fullmatch(rest)
    return scheme + (_MASK if unescaped is None else f"{unescaped['user']}:{_MASK}@{unescaped['place']}")


def _shown_query(query: str | None) -> str | None:
    """The query without secrets, with its question mark. None if it is not a list of name=value."""
    if query is None:
        return ""
    shown = []
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[\w%]+", name):
            return None
        shown.append(f"{name}={value if unquote(name) in _SHOWN else _MASK}")
    return f"?{'&'.join(shown)}"
