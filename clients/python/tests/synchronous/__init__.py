"""Tests of the synchronous client. All files but `together.py` are made from `asynchronous`: edit those."""
