"""The engine `memory:`."""

from leasehold.engines.base import DEFAULT_NAMESPACE, Clock
from leasehold.engines.memory.space import MemorySpace


class MemoryEngine:
    """Spaces that last as long as the process."""

    name = "memory"
    shared = False
    durable = False

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock
        self._spaces: dict[str, MemorySpace] = {}

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> MemorySpace:
        if namespace not in self._spaces:
            self._spaces[namespace] = MemorySpace(clock=self._clock)
        return self._spaces[namespace]
