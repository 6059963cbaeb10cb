"""The command line.

    app.py          `leasehold` and `jwt-generator`: which command runs, `--help`, `--version`
    exit_codes.py   the exit codes, and the exception that ends a command with one of them
    arguments.py    the declaration of options, and the messages for wrong ones
    connecting.py   URL, token and lease of commands that talk to a service; how its errors become exit codes
    options.py      options that several of these commands have
    changes.py      what the commands that change one entry have in common
    input.py        values that they send
    output.py       what they print; shown_*.py for what has columns
    pages.py        lists, read in pages
    get.py put.py   one command each, and so on

A command's file has its options, its work and its output. To add a command, write its `Command` and name its module in
`app.GROUPS`. The imports at the top of a module are only those that `--help` needs. All others are inside the function
that needs them. `tests/cli/test_imports.py` lists what must not be imported.
"""
