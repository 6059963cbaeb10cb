"""The URL of a store on PostgreSQL: `postgresql://user:password@host:port,host:port/database?setting=value`."""

import re
from typing import Final

SCHEMES: Final = ("postgresql", "postgres")

_SECRET_PARAMETER: Final = re.compile(r"([?&][a-z_]*pass(?:word)?=)[^&]*", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(?P<scheme>[a-z]+://)(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]+)(?P<rest>[/?#].*)?")


def is_postgres(url: str) -> bool:
    return url.partition(":")[0] in SCHEMES and ":" in url


def shown_url(url: str) -> str:
    """`url` without its password, for people and logs. Any other kind of store is shown as it is."""
    if not is_postgres(url):
        return url
    url = _SECRET_PARAMETER.sub(r"\1***", url)
    scheme, slashes, rest = url.partition("://")
    # Up to the last @, because a password that was not escaped may hold one, or a slash.
    user_info, at, place = rest.rpartition("@")
    user, colon, _ = user_info.partition(":")
    return f"{scheme}{slashes}{user}{colon and ':***'}{at}{place}"


def single_host_urls(url: str) -> list[str]:
    """One URL for each host, so that each can be tried for a time of its own."""
    parts = _AUTHORITY.fullmatch(url)
    if parts is None or "," not in parts["hosts"]:
        return [url]
    return [
        f"{parts['scheme']}{parts['user'] or ''}{host}{parts['rest'] or ''}"
        for host in parts["hosts"].split(",")
        if host
    ]
