"""The conformance suite of engines. A new engine needs a test module with a few lines:

from conformance import DurableConformance, DurableNamespaceConformance

class TestMyEngine(DurableConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return MyEngine(folder / "store", clock=clock)

class TestNamespacesOfMyEngine(DurableNamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return MyEngine(folder / "store", clock=clock)
"""

from conformance.namespaces import DurableNamespaceConformance, NamespaceConformance
from conformance.suite import DurableConformance, SpaceConformance

__all__ = ["DurableConformance", "DurableNamespaceConformance", "NamespaceConformance", "SpaceConformance"]
