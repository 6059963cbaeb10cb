"""From a request to its endpoint: what all endpoints need to read a request, and the checks before an endpoint runs.

route.py          what a route is: endpoint, permission, parameters, responses
router.py         the route of a request
admission.py      Host, Origin, token and permission of a request
cors.py           headers for pages of allowed origins
refusal_log.py    the log of refused requests
parameters.py     parameters: key, path, ttl, prefix, limit …
bodies.py         bodies as JSON values
preconditions.py  If-Match, If-None-Match, If-Lease
negotiation.py    Accept and Prefer
openapi.py        /openapi.json, with openapi_schemas.py
"""
