"""Writes the changes of a decided batch, in the transaction that has loaded what the batch touches.

One statement writes all records as a whole, all removals, the head and the signature of the batch. Documents of which a
part has changed come before it, one statement each (`differences`).
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from leasehold.engines import base
from leasehold.engines.postgres import record_statements
from leasehold.engines.postgres.differences import Difference
from leasehold.engines.postgres.links import SILENCE_SECONDS, Connection, time_limit
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.tables import TABLES
from leasehold.engines.postgres.view import KIND_NAMES, Loaded, Names
from leasehold.model import KINDS, AnyKind, Change, is_removal

MAX_REMOVALS_FACTOR: Final = 2
"""At most this many times HISTORY_CHANGES removals of a kind are known. Without this limit, transactions of 128
deletions each would store 13 million of them."""


class Written(msgspec.Struct, frozen=True):
    """A written batch. `before` is the head that it found; changes up to it are older or those of other servers.

    `is_told`: its transaction sends a notification.
    """

    head: int
    before: int
    batch: int
    changes: Mapping[AnyKind, Sequence[Change]]
    is_told: bool


class ChangeWriter:
    """Of one space. `writer_id`: the id of this server."""

    def __init__(self, namespace: str, writer_id: uuid.UUID) -> None:
        self._namespace = namespace
        self._writer_id = writer_id
        self._uncounted_removals: int | None = None
        """Removals since this server last counted those that are stored. None: it has not counted them yet."""

    async def write(self, pipeline: Pipeline, loaded: Loaded, names: Names, written: Written) -> None:
        """Put the changes of a batch into the pipeline. `names`: what the batch touches."""
        parts: list[record_statements.Part] = []
        arguments: list[object] = []
        removed = 0
        for kind in KINDS:
            if kind in written.changes:
                records = written.changes[kind]
                removals = [change for change in records if is_removal(change)]
                if removals:
                    records = [change for change in records if not is_removal(change)]
                whole = records
                if kind in loaded.rows:
                    whole = await self._write_parts(pipeline.connection, kind, records, loaded)
                parts.append((kind, bool(removals)))
                arguments += TABLES[kind].values(whole)  # type: ignore[arg-type] # of this kind
                if TABLES[kind].document is not None:
                    arguments.append([] if len(whole) == len(records) else _others(records, whole))
                if removals:
                    arguments.append([each.name for each in removals])
                if removals and kind.has_history:
                    removed += len(removals)
                    arguments.append([each.revision for each in removals])
        growth = await self._growth(pipeline, written.changes, loaded, names)
        signature = (self._writer_id, written.batch, loaded.now, loaded.complete_from)
        statement = record_statements.write(tuple(parts), is_told=written.is_told)
        with time_limit(pipeline.connection, SILENCE_SECONDS):
            await pipeline.add(statement, self._namespace, written.head, *signature, *growth, *arguments)
            await self._compact(pipeline, written.head, loaded.compacted, removed)

    async def _growth(
        self, pipeline: Pipeline, of_kinds: Mapping[AnyKind, Sequence[Change]], loaded: Loaded, names: Names
    ) -> tuple[int, int]:
        """By how much changes make the members of `Usage` larger."""
        entries = size = 0
        for kind, changes in of_kinds.items():
            growth = TABLES[kind].growth
            if growth is not None:
                entries, size, unknown = growth(loaded.by_name.get(kind, {}), names.by_kind.get(kind, ()), changes)
                if unknown:  # the oldest version of a state of Terraform is removed without being loaded
                    with time_limit(pipeline.connection, SILENCE_SECONDS):
                        [stored] = await pipeline.fetch(
                            record_statements.OF_KIND[kind].sizes, self._namespace, record_statements.joined(unknown)
                        )
                    entries, size = entries - stored[0], size - stored[1]
        return entries, size

    async def _compact(self, pipeline: Pipeline, head: int, compacted: int, removed: int) -> None:
        """Forget the oldest removals, if they are too old or if there are too many. `removed`: by this batch.

        Each server counts the stored removals, at its first one and then once for so many new ones. It deletes the rows
        of twice as many, so the table becomes smaller even if all servers remove records as fast as they can.
        """
        interval = base.HISTORY_CHANGES // 10
        floor = head - base.HISTORY_CHANGES
        # Often, because each commit has left a row in `batches`, and a commit that deletes many of them takes long.
        must_compact = floor - compacted > base.HISTORY_CHANGES // 100
        if removed:
            uncounted = interval if self._uncounted_removals is None else self._uncounted_removals + removed
            if uncounted >= interval:
                most = MAX_REMOVALS_FACTOR * base.HISTORY_CHANGES
                [[surplus]] = await pipeline.fetch(record_statements.SURPLUS, self._namespace, most)
                floor, uncounted, must_compact = max(floor, surplus or 0), 0, True
            self._uncounted_removals = uncounted
        if must_compact:
            await pipeline.add(
                record_statements.COMPACT, self._namespace, max(floor, compacted), KIND_NAMES, 2 * interval
            )

    async def _write_parts(
        self, connection: Connection, kind: AnyKind, records: Sequence[Change], loaded: Loaded
    ) -> list[Change]:
        """Write the records for which one part of the document is enough. Returns the other records."""
        document = TABLES[kind].document
        assert document is not None
        before, rows = loaded.by_name[kind], loaded.rows[kind]
        whole: list[Change] = []
        for record in records:
            old = before.get(record.name)
            part = None if old is None else document.part(rows[record.name], old, record)  # type: ignore[arg-type]
            if part is None:
                whole.append(record)
            else:
                beside = [getattr(record, column) for column in document.beside]
                await self._write_part(connection, kind, record.name, part, beside)
        return whole

    async def _write_part(
        self, connection: Connection, kind: AnyKind, name: str, part: Difference, beside: Sequence[object]
    ) -> None:
        of_kind = record_statements.OF_KIND[kind]
        arguments: list[object] = [self._namespace, name, list(part.path), *beside]
        with time_limit(connection, SILENCE_SECONDS):
            if part.part is None:
                await connection.execute(of_kind.remove_part, *arguments)
            else:
                await connection.execute(of_kind.set_part, *arguments, part.part)


def _others(records: Sequence[Change], whole: Sequence[Change]) -> list[str]:
    """The names of the records that were written in part."""
    names = {record.name for record in whole}
    return [record.name for record in records if record.name not in names]
