"""Imports what the commands of `leasehold` import. The fork server of `forked` does this once.

Not what has PyJWT, cryptography or OpenTelemetry: which of them a service imports, and in which order, depends on its
settings.
"""

import gc
import sys
from importlib import import_module
from pkgutil import walk_packages

import leasehold_client

import leasehold

LEFT_OUT = {
    "leasehold.__main__",
    "leasehold.access.public_keys",
    "leasehold.access.token_verification",
    "leasehold.server.span_export",
}

sys.modules["rich"] = None  # type: ignore[assignment]  # as `leasehold` does before it imports a command

for name in ("encodings.idna", "_strptime", "httpcore2"):  # those that are imported when they are first needed
    import_module(name)
for package in (leasehold, leasehold_client):
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in LEFT_OUT:
            import_module(module.name)
assert sys.modules.keys().isdisjoint({"jwt", "cryptography", "opentelemetry"})

gc.freeze()  # a collection in a copy would touch, and so copy, the memory of all that was imported
