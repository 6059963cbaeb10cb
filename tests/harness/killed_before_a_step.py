"""A process that is killed before one use of its disk or of a connection to its database, for tests of what remains."""

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
        step()
        return super().__getattribute__(name)

class KilledConnection:
    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        step()
        return getattr(self._connection, name)

connect = links.Address.connect

async def connected(self):
    return KilledConnection(await connect(self))

links.Address.connect = connected
"""
"""The first part of a script. The rest of it sets `steps`, the uses before the kill, and `disk.OsDisk`."""
