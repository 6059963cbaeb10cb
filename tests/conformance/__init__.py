"""The conformance suite of engines. A new engine needs a test module with a few lines:

from conformance import DurableConformance

class TestMyEngine(DurableConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return MyEngine(folder / "store", clock=clock)
"""

from conformance.suite import DurableConformance, SpaceConformance

__all__ = ["DurableConformance", "SpaceConformance"]
