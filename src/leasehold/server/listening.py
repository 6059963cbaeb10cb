"""The listening socket of the service."""

import asyncio
import socket
from typing import Final

from leasehold.errors import ServiceError, unavailable
from leasehold.http.wire.connection import Connection
from leasehold.http.wire.connections import Connections
from leasehold.limits import KIB
from leasehold.server.config import Settings

BACKLOG: Final = 4_096
"""Connections that the kernel has accepted and the service has not."""
UNSENT_BYTES: Final = 16 * KIB
"""How much of a response the kernel buffers before it is sent (TCP_NOTSENT_LOWAT). Without a limit it buffers megabytes
for each client that requests much and does not read, which costs memory and delays other clients."""


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket that is bound but does not listen yet. `shared`: other processes may bind to the same port.

    Raises `unavailable`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS; accepted connections inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    listening.setblocking(False)  # noqa: FBT003 - the name of the method says what it means
    return listening


async def listen(listening: socket.socket, connections: Connections, settings: Settings) -> asyncio.Server:
    """Accept connections on a bound socket. Raises `unavailable`."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(lambda: Connection(connections), sock=listening, backlog=BACKLOG)
    except OSError as error:  # another process has bound to the port and listened first
        raise _cannot_listen(settings.host, settings.port, error) from error


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> ServiceError:
    reason = error.strerror if isinstance(error, OSError) else "not a valid host name"
    return unavailable(f"cannot listen on {host} port {port}: {reason}")
