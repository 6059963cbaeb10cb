"""The whole of a store in memory."""
