"""How long work of many requests shares the event loop."""

import asyncio


class Turn(asyncio.Lock):
    """Hold it for a piece of long work, until the next iteration of the event loop.

    So however many requests cause such work, an iteration has one piece.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoded_bytes = 0
        """By all holders together since one of them kept it until the next iteration. So many short pieces count as a
        long one."""
