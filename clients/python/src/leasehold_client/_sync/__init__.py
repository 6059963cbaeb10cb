"""The synchronous client. All files but `runtime.py` are made from `_async` by `tools/make_sync.py`: edit those."""
