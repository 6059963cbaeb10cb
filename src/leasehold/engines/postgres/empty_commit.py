"""A durable commit that changes no record. It shows whether the database takes writes."""

from uuid import UUID

from leasehold.engines.postgres import head_statements, record_statements
from leasehold.engines.postgres.links import Connection
from leasehold.engines.postgres.tables import TABLES
from leasehold.engines.postgres.view import EVERY_KIND, KIND_NAMES, current, head_is_missing
from leasehold.model import KINDS


async def commit_nothing(connection: Connection, namespace: str, probe_id: UUID, now: int | None) -> None:
    """It needs the same tables and privileges as every other commit. `now`: the parameter `clock` of the statements.

    It uses its own row in `writers`, that of `probe_id`, because a batch may be waiting for the outcome of its COMMIT.
    """
    async with connection.transaction():
        await connection.fetch(head_statements.LOCK_HEAD, namespace)
        rows = await connection.fetch(record_statements.load(EVERY_KIND.kinds), namespace, now, *EVERY_KIND.parameters)
        found = current(rows)
        if found is None:
            raise head_is_missing()
        time, head, compacted, _, _, complete_from = found
        await connection.fetch(head_statements.LAST_BATCH, namespace, probe_id)
        parts = tuple((kind, True) for kind in KINDS)
        arguments: list[object] = [head, probe_id, 0, time, complete_from, 0, 0]
        for kind in KINDS:
            arguments += TABLES[kind].values([])
            if TABLES[kind].document is not None:
                arguments.append([])
            arguments += ([], []) if kind.has_history else ([],)
        await connection.fetch(record_statements.write(parts), namespace, *arguments)
        await connection.execute(record_statements.COMPACT, namespace, compacted, KIND_NAMES, 0)
