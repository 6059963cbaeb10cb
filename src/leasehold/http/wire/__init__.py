"""Connections: bytes in, requests out; responses in, bytes out.

connections.py      all connections of a server, and what they share
connection.py       one connection: the queue of its requests, and how it ends
states.py           the states of a connection, and what each of them means
request_parser.py   bytes in, complete requests out
reception.py        the request that is being received, within the limits
head_faults.py      what is wrong with the head of a request
header_cache.py     header blocks that need not be parsed again
quick_get.py        the fast path of a plain GET
quick_put.py        the fast path of a plain POST or PUT
quick_answer.py     what the fast paths share: which paths they serve, and the answer with an entry
waiting_gets.py     plain GETs that one iteration of the event loop has read, answered together
quick_requests.py   requests on the fast paths: begun, completed, answered
answering.py        one request: begun, completed, answered
sending.py          how responses are sent: together, or streamed at the client's pace
deadlines.py        the deadlines of clients that send or read too slowly
in_flight.py        the budgets for bodies and responses of all connections together
socket_state.py     what the operating system knows of a client's socket
"""
