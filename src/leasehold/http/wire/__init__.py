"""Connections: bytes in, requests; responses, bytes out."""
