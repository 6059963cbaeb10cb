"""The engine for one process and one file."""
