"""A process that is killed before one use of its disk or of a connection to its database, for tests of what remains.

A use that only reads is no step: a kill before it leaves the same as a kill after it, that is before the next use. Most
uses only read, and for each step the whole command is repeated. All other uses are steps, also those that are not known
here. Of the statements that begin with SELECT, only those that distribute or copy tables change anything.
"""

KILLED_BEFORE_A_STEP = """
import concurrent.futures.thread, gc, importlib.resources.readers, os, signal, zipfile
from leasehold.engines.file import disk, engine, moves
from leasehold.engines.postgres import engine, links, moves

gc.freeze()  # a copy of this process shares the memory of what is imported here, and imports none of it again

steps = 0

def step():
    global steps
    steps -= 1
    if steps < 0:
        os.kill(os.getpid(), signal.SIGKILL)

class KilledDisk(disk.OsDisk):
    def __getattribute__(self, name):
        if name not in {"open", "read", "close", "names", "identity", "identity_of", "free_bytes"}:
            step()
        return super().__getattribute__(name)

class KilledConnection:
    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        used = getattr(self._connection, name)
        if name in {"is_closed", "add_log_listener", "remove_log_listener"}:
            return used
        if name in {"execute", "fetch", "fetchrow", "fetchval"}:
            return lambda statement, *arguments: self._query(used, statement, *arguments)
        step()
        return used

    def _query(self, used, statement, *arguments):
        reads = statement.lstrip().startswith("SELECT")
        if not reads or statement.startswith(("SELECT create_", "SELECT truncate_")):
            step()
        return used(statement, *arguments)

    def transaction(self):
        return KilledTransaction(self._connection.transaction())

class KilledTransaction:
    # Its BEGIN and its COMMIT are statements that no method of the connection is asked for.
    def __init__(self, transaction):
        self._transaction = transaction

    async def __aenter__(self):
        step()
        return await self._transaction.__aenter__()

    async def __aexit__(self, *error):
        step()
        return await self._transaction.__aexit__(*error)

connect = links.Address.connect

async def connected(self):
    return KilledConnection(await connect(self))

links.Address.connect = connected
"""
"""The first part of a script. The rest of it sets `steps`, the uses before the kill, and `disk.OsDisk`."""
