"""What the operating system knows of a client's socket, beyond what the transport tells."""

import asyncio
import fcntl
import select
import struct
import termios


def is_connected(transport: asyncio.Transport) -> bool:
    """Whether the client is still connected, before the end of its data was read. Takes 2 µs."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), getattr(select, "POLLRDHUP", 0))  # elsewhere than on Linux only a reset is told
    return not poll.poll(0)


def unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """What was written and not yet acknowledged by the client, the kernel's share included.

    The kernel's buffer may hold megabytes, so the progress of a slow reader shows only there.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(termios, "TIOCOUTQ"):
        size += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return size
