"""The service as a process: settings, start, stop, and several workers. `run.py` has the map."""
