"""Runs the harnesses for a given time: `make torture MINUTES=30`. See `__main__`."""
