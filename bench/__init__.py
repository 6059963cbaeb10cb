"""Side-by-side measurements of Leasehold and other services, run as `python -m bench`."""
