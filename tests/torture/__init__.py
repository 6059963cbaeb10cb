"""Runs the harnesses for as long as it is told to: `make torture MINUTES=30`. See `__main__`."""
