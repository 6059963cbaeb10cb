"""How long work of many requests shares the event loop."""

import asyncio

from leasehold.limits import MAX_GATHERED_LISTS


class Turn(asyncio.Lock):
    """Hold it for a piece of long work, until the next iteration of the event loop.

    So however many requests cause such work, an iteration has one piece.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoded_bytes = 0
        """By all holders together since one of them kept it until the next iteration. So many short pieces count as a
        long one."""


class Turns:
    """What all stores of a process share, because they share its event loop and its memory."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.gathering = asyncio.Semaphore(MAX_GATHERED_LISTS)
        """Hold it while a list is made in one piece, because each may take MAX_GATHERED_BYTES. Others wait."""
