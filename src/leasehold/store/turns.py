"""What the requests of all stores share: the event loop for long work, memory for lists, and places to wait."""

import asyncio

from leasehold.limits import MAX_GATHERED_LISTS, MAX_WAITING_READS


class Turn(asyncio.Lock):
    """Hold it for a piece of long work, until the next iteration of the event loop.

    So however many requests cause such work, an iteration has one piece.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoded_bytes = 0
        """By all holders together since one of them kept it until the next iteration. So many short pieces count as a
        long one."""


class Places:
    """How many may wait, and how many do."""

    __slots__ = ("most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0


class Turns:
    """What all stores of a process share, because they share its event loop, its memory and its connections."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.gathering = asyncio.Semaphore(MAX_GATHERED_LISTS)
        """Hold it while a list is made in one piece, because each may take MAX_GATHERED_BYTES. Others wait."""
        self.waiting_reads = Places(MAX_WAITING_READS)
        """Of reads that wait, each of which takes a connection."""
