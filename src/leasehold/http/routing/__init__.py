"""From a request to the endpoint that answers it, and what all endpoints read of a request."""
