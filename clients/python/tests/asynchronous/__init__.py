"""Tests of the asynchronous client. Those of the synchronous client are made from them: see `tools/make_sync.py`."""
