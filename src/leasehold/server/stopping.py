"""What stops the service: SIGTERM, SIGINT, or the death of the supervisor. Each also starts the deadline."""

import asyncio
import signal
from types import FrameType

from leasehold.process.shutdown import Deadline
from leasehold.process.signal_mask import ENDS, take_ends


def stop_event(loop: asyncio.AbstractEventLoop, deadline: Deadline, lifeline: int | None) -> asyncio.Event:
    """An event that is set when the service is to stop. Signals that came before this call count.

    `lifeline`: a pipe whose other end only the supervisor holds. It is closed when the supervisor has died.
    """
    stop = asyncio.Event()

    def stop_by_signal(_number: int, _frame: FrameType | None) -> None:
        deadline.begin()
        loop.call_soon_threadsafe(stop.set)

    def stop_by_lifeline(closed: int) -> None:
        loop.remove_reader(closed)  # a closed pipe stays readable: the loop would call this at every turn
        deadline.begin()
        stop.set()

    for number in ENDS:
        # Not `loop.add_signal_handler`: the deadline must begin even if the event loop hangs.
        signal.signal(number, stop_by_signal)
    take_ends()
    if lifeline is not None:
        loop.add_reader(lifeline, stop_by_lifeline, lifeline)
    return stop
