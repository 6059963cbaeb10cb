"""The command line.

    app.py        `leasehold` and `jwt-generator`: which command runs, `--help`, `--version`, exit codes
    arguments.py  the declaration of options, and the messages for wrong ones
    serve.py status.py check.py token.py      one command each
    backup.py     `backup`, `restore` and `advance`

A command's file has its options, its work and its output. To add a command, write its `Command` and name its module in
`app.MODULES`. The imports at the top of a module are only those that `--help` needs. All others are inside the function
that needs them. `tests/cli/test_imports.py` lists what must not be imported.
"""
