"""The engine for several servers on one PostgreSQL. Nothing is imported here: asyncpg is an extra.

engine.py       the contract: commits, lists, faults
listener.py     what other servers commit
cleaner.py      which server of all cleans up
backups.py      everything at one moment, and a backup put into the database
reads.py        single reads, gathered into few queries
links.py        connections: made, kept, watched, replaced
failures.py     which failures pass, and what callers, the operator and the log are told
statements.py   every statement, and rows as entries
jsonb.py        JSON text in and out of JSONB, and what JSONB would change
differences.py  the one place where two versions of a large document differ
schema.py       tables.sql and the migrations after it
urls.py         which stores are on PostgreSQL, and how they are shown
parameters.py   connection strings, and every parameter of libpq
"""
