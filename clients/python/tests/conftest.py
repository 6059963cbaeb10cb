"""Fixtures for all tests of the client."""

from servers import anyio_backend, guarded, key, own_server, server

__all__ = ["anyio_backend", "guarded", "key", "own_server", "server"]
