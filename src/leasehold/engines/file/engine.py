"""The engine `file`: one space, in `data.json` and the files beside it."""

from pathlib import Path

from leasehold.engines.base import Clock
from leasehold.engines.default_only import DefaultOnly
from leasehold.engines.file.space import FileSpace
from leasehold.errors import no_such_namespace
from leasehold.namespaces import DEFAULT_NAMESPACE


class FileEngine(DefaultOnly):
    """The store at `path`. `Space.open` opens its files."""

    name = "file"
    shared = False
    durable = True

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._space = FileSpace(path, clock=clock)

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> FileSpace:
        if namespace != DEFAULT_NAMESPACE:
            raise no_such_namespace()
        return self._space
