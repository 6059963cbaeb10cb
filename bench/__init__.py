"""Compares Leasehold with other services on the same machine: `python -m bench`."""
