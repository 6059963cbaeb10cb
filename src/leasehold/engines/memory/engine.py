"""The engine `memory:`."""

from leasehold.engines.base import Clock
from leasehold.engines.memory.space import MemorySpace
from leasehold.namespaces import DEFAULT_NAMESPACE


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
