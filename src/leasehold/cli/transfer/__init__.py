"""Entries on their way between services and files: what `export`, `import` and `copy` share.

arguments.py      the options that they share
choices.py        the names that options take
items.py          what a file contains: entries to be written, and what is not one
entry_lines.py    entries as lines of JSON, as `export` writes them
backup_lines.py   the entries of a backup, which is also what `GET /backup` returns
foreign_files.py  files of `consul kv export` and of `etcdctl get -w json`
foreign_values.py what the bytes of a foreign value become
formats.py        finds the format of a file and reads it
prefixes.py       which keys are taken, and how they are renamed
requests.py       the requests that write or look for entries; pure functions
importing.py      writes entries to a service, in transactions
exporting.py      reads entries from a service
rejects.py        shows and keeps what cannot be imported
summaries.py      what became of all entries, in one line

The text of a value is passed on as it is and never encoded again, so numbers keep their form.
To add a format, write its reader, name it in `choices.py`, and say in `formats.py` how it is found.
"""
