"""What callers see: the listener's connections, the route table and its endpoints."""
