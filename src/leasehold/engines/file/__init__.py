"""The engine `file`: a store in one file, used by one process."""
