"""The command line.

    app.py        `leasehold` and `jwt-generator`: which command runs, `--help`, `--version`, exit codes
    arguments.py  how options are declared, and how a wrong one is told
    serve.py status.py check.py token.py      one command each
    backup.py     `backup`, `restore` and `advance`

A command's file has its options, what it does, and what it prints. To add a command, write its `Command` and name its
module in `app.MODULES`. A module imports at its top only what `--help` needs; what a command works with is imported by
the function that works with it. `tests/cli/test_imports.py` lists what must not be imported.
"""
