"""Imports what the commands of `leasehold` import. The fork server of `forked` does this once."""

import gc
import sys
from importlib import import_module

sys.modules["rich"] = None  # type: ignore[assignment]  # as `leasehold` does before it imports a command

for module in (
    "encodings.idna",
    "leasehold.cli.app",
    "leasehold.cli.serve",
    "leasehold.engines.file.engine",
    "leasehold.engines.memory.engine",
    "leasehold.engines.postgres.engine",
    "leasehold.server.run",
    "leasehold_client",
):
    import_module(module)

gc.freeze()  # a collection in a copy would touch, and so copy, the memory of all that was imported
