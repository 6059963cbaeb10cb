"""Who may use the service, from the settings; and warnings about what outsiders can see or do."""

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from leasehold.access.hosts import parse_allowed_hosts, parse_allowed_origins
from leasehold.access.token_secret import is_exposed
from leasehold.errors import ServiceError, unavailable
from leasehold.http.routing.admission import Admission
from leasehold.process.imports import leave_out
from leasehold.server.config import Settings

if TYPE_CHECKING:
    from leasehold.access.token_keys import VerificationKey
    from leasehold.access.token_verification import Verifier

log = structlog.get_logger(__name__)


def admission_for(settings: Settings, address: str) -> Admission:
    """The check of each request. `address`: the one that the service listens on.

    Raises `unavailable` if a key cannot be loaded, and if the whole network would have access without
    `insecure_open`.
    """
    verifier = _verifier(settings)
    is_loopback = _is_loopback(address)
    if verifier is None and not is_loopback and not settings.insecure_open:
        raise unavailable(
            f"without a key for tokens the service runs on loopback only, and {settings.host} is not: "
            "give --auth-secret-file or --auth-public-key-file, or --insecure-open if the network is trusted"
        )
    allowed = parse_allowed_hosts(settings.allowed_hosts)
    origins = parse_allowed_origins(settings.allowed_origins)
    if not is_loopback and not allowed and verifier is not None:
        return Admission(verifier, None, origins=origins)
    # DNS rebinding: a web page may point its own host name at this address. It has no token, but where none is needed
    # only the Host header reveals it. A page's host name cannot be an IP address, so addresses are accepted until the
    # operator lists the allowed hosts.
    own_hosts = {"localhost", "127.0.0.1", "::1", settings.host.lower(), address} | allowed
    takes_addresses = not is_loopback and not allowed
    return Admission(verifier, frozenset(own_hosts), takes_addresses=takes_addresses, origins=origins)


def warn_of_exposure(settings: Settings, address: str) -> None:
    """Log, once at the start, what outsiders can see or do. `address`: the one that the service listens on."""
    for name in settings.auth_secret_file:
        if is_exposed(Path(name)):
            log.warning("other users may read or change the secret file; chmod 600", file=name)
    if _is_loopback(address):
        return
    if settings.auth_secret_file or settings.auth_public_key_file:
        log.warning("tokens and values are sent unencrypted over plain HTTP; put TLS in front", host=settings.host)
    elif settings.insecure_open:
        log.warning(
            "anybody who can reach the port may read, write and end any lease: no key for tokens is set",
            host=settings.host,
        )


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def _verifier(settings: Settings) -> "Verifier | None":
    """PyJWT is imported only for a service with tokens, because that takes a fifth of the start, and cryptography only
    for public keys, because it takes 9 MB.
    """
    if not settings.auth_secret_file and not settings.auth_public_key_file:
        return None
    from leasehold.access.token_keys import secret_key

    keys = _keys(settings.auth_secret_file, secret_key)
    if settings.auth_public_key_file:
        from leasehold.access.public_keys import public_key

        keys += _keys(settings.auth_public_key_file, public_key)
    else:
        # PyJWT imports it where it can. If a secret looked like another key, PyJWT has looked at it with cryptography.
        leave_out("cryptography")
    from leasehold.access.token_verification import Verifier

    return Verifier(
        keys,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        leeway_seconds=settings.auth_leeway_seconds,
        expiry_leeway_seconds=settings.auth_expiry_leeway_seconds,
        now=time.time,
    )


def _keys(files: Sequence[str], load: "Callable[[Path], VerificationKey]") -> "list[VerificationKey]":
    """The key in each file. Raises `unavailable`, with the name of the file if there are several."""
    keys: list[VerificationKey] = []
    for file in map(Path, files):
        try:
            keys.append(load(file))
        except ServiceError as error:
            if len(files) == 1:
                raise
            raise unavailable(f"{file.name}: {error.message}") from error
    return keys
