"""Hosts and origins: parsed from `Host`, from `Origin` and from the settings, in a form that can be compared.

Names are compared without case and without a final dot, IPv6 addresses by their value. The default port of a scheme may
be left out (RFC 9110, section 4.2.3; RFC 6454, section 4).
"""

import re
from ipaddress import ip_address
from typing import Final

from leasehold.errors import ServiceError

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_PORT: Final = 65_535

_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/?#@\s]+))(?::([0-9]{0,5}))?")
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")

Origin = tuple[str, str, int]
"""Scheme, host and port."""


def parse_host(text: str) -> tuple[str, int | None] | None:
    """The name or address in its comparable form, and the port if it is given; None if the text is not a host."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    port = int(match[3]) if match[3] else None
    if match[1] is None:
        return match[2].lower().removesuffix("."), port
    address = _address(match[1])
    return None if address is None else (address, port)


def parse_origin(text: str) -> Origin | None:
    """The origin of a web page; None for any other text, `null` included."""
    scheme, separator, authority = text.partition("://")
    default_port = DEFAULT_PORTS.get(scheme.lower())
    host = parse_host(authority)
    if not separator or default_port is None or host is None:
        return None
    name, port = host
    return scheme.lower(), name, default_port if port is None else port


def is_address(name: str) -> bool:
    """Whether a host, as `parse_host` returns it, is an IP address. DNS rebinding cannot use an address."""
    return _address(name) is not None


def parse_allowed_hosts(setting: str) -> frozenset[str]:
    """Names and addresses, separated by commas. Raises `invalid_argument` for one that no `Host` can match."""
    return frozenset(_allowed_host(name) for name in _items(setting))


def parse_allowed_origins(setting: str) -> frozenset[Origin]:
    """Origins, separated by commas. Raises `invalid_argument` for one that no browser sends."""
    return frozenset(_allowed_origin(text) for text in _items(setting))


def _items(setting: str) -> list[str]:
    return [text.strip() for text in setting.split(",") if text.strip()]


def _allowed_host(text: str) -> str:
    address = _address(text)
    if address is not None:
        return address
    name = text.lower().removesuffix(".")
    if _NAME.fullmatch(name):
        return name
    host = parse_host(text)
    hint = f"; write {host[0]}" if host is not None and (is_address(host[0]) or _NAME.fullmatch(host[0])) else ""
    raise _wrong(text, f"not a host name: write it without a port, brackets or wildcards{hint}")


def _allowed_origin(text: str) -> Origin:
    origin = parse_origin(text)
    if origin is None or not (is_address(origin[1]) or _NAME.fullmatch(origin[1])) or origin[2] > MAX_PORT:
        raise _wrong(text, "not an origin like https://app.example.com or http://localhost:3000")
    return origin


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _wrong(text: str, reason: str) -> ServiceError:
    return ServiceError("invalid_argument", f"{text[:80]!r} is {reason}")
