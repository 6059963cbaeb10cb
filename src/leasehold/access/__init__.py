"""Who may do what, and from where.

permissions.py         what a caller may do: permissions, and the prefixes that its token covers
authorization.py       the Authorization header, and the error for a missing or bad token
token_verification.py  the principal of a bearer token
token_keys.py          the keys that verify tokens, and the secret as one of them
public_keys.py         public keys, loaded from files
token_secret.py        the secret of HS256 tokens, loaded from a file
token_minting.py       tokens made by `leasehold token`
hosts.py               hosts and origins, parsed and compared
"""
