"""The HTTP interface: connections, routes and endpoints.

wire/             connections: from bytes to requests, from responses to bytes
routing/          from a request to its endpoint: routes, admission, and what all endpoints read of a request
endpoints/        one file for each command: its request, its response and its route
requests.py       requests
responses.py      responses
encoding.py       the bytes of a response
pieces.py         bodies that are made or sent in pieces
event_formats.py  how the events of a watch are encoded
media_types.py    media types of responses, and the Content-Type of bodies
redaction.py      errors for callers that may write but not read
"""
