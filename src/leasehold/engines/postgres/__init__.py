"""The engine for several servers on one PostgreSQL. Nothing is imported here: asyncpg is an extra.

engine.py       hands out the spaces
database.py     what all spaces share: connections, listener, fault
space.py        a space: its head, feed, reads and lists
committer.py    one batch in one transaction, and the proof of a COMMIT whose answer was lost
change_writer.py  what this transaction writes
turns.py        servers that commit at the same time take turns
view.py         what a batch asks for, and what is loaded for it
writer.py       the connection for writes, which the spaces use in turns
fault.py        why the database cannot be written, and when it can be again
empty_commit.py a commit that changes no record, which shows whether the database takes writes
known_head.py   the revision and the incarnation as known here, and a database that has gone back
feed.py         the subscribers, and the order in which they are called
listener.py     what other servers commit
cleaner.py      which server of all removes what has expired
reads.py        single reads, gathered into few queries
pool.py         connections for lists and rare queries
backups.py      all entries at one moment, and a backup put into the database
tables/         the table of each kind, as data
*_statements.py every statement: about the head and the servers, records, changes, namespaces, cleaning, moves
jsonb.py        JSON text in and out of JSONB, and what JSONB would change
differences.py  the one place where two versions of a large document differ
schema.py       tables.sql and the migrations after it
links.py        connections: opened, limited in time, replaced
array_types.py  array types, asked for once in a process
primary.py      which server is the primary, and the end of connections to a former one
failures.py     which failures are transient, and the errors and log lines for callers and the operator
durability.py   warnings for settings of the database that lose changes
urls.py         which stores are on PostgreSQL, and how they are shown
parameters.py   connection strings, and every parameter of libpq
"""
