"""What work costs, as the number of lines of Python that it executes. So a test does not depend on the machine."""

import sys
from collections.abc import Callable
from types import FrameType


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of Python something executes."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type] # it is a trace function
    try:
        work()
    finally:
        sys.settrace(before)
    return count
