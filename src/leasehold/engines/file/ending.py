"""The end of a store: the last checkpoint, or the last changes are left in the journal.

All changes are durable in the journal, so nothing is lost without a last checkpoint. A store ends without one if it is
so large that its process might be killed before the end of the checkpoint.
"""

from functools import partial

import structlog

from leasehold.engines.file import policy
from leasehold.engines.file.disk import WriteError
from leasehold.engines.file.job_thread import JobThread
from leasehold.engines.file.spaces import Spaces
from leasehold.engines.file.storage import Storage
from leasehold.errors import ServiceError, unavailable

log = structlog.get_logger(__name__)


async def end_files(storage: Storage, spaces: Spaces, sync: JobThread, checkpointer: JobThread) -> None:
    """Write `data.json` and remove the journals, unless the store is too large. No commit begins any more.

    Raises `unavailable` if the files could not be written.
    """
    spaces.publish_all()
    is_large = policy.leaves_journal(spaces.text_bytes)
    if is_large:
        storage.stop_checkpoints()
    storage.progress.begin("completing the writes in progress")
    await sync.rest()
    await checkpointer.rest()
    try:
        await sync.call(storage.verify)
        if is_large and storage.has_changes_in_journals:
            log.info(
                "the store is large, so its last changes are left in the journal; the next start reads all files",
                keep=storage.names,
            )
            return
        snapshots = spaces.snapshots(storage.log)
        await sync.call(partial(storage.rewrite_all, *snapshots))
        await sync.call(partial(storage.checkpoint_alone, *snapshots))
    except WriteError as error:
        raise _left_incomplete(storage, error) from error


def _left_incomplete(storage: Storage, error: WriteError) -> ServiceError:
    name = storage.names[0]
    journals = (f"{name}{suffix}" for suffix in (".journal.old", ".journal"))  # they may be there or not
    if storage.lost:
        return unavailable(f"{name} was used by another process; nothing was written to it any more")
    return unavailable(
        f"the last checkpoint failed ({error.cause.strerror or error}): {name} alone is not complete, keep "
        f"{' and '.join(journals)} with it; the next start reads all of them"
    )
