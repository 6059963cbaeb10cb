"""Who may do what, and from where.

permissions.py         what a caller may do: permissions, and the prefixes that its token covers
token_verification.py  the principal of an Authorization header
token_keys.py          secrets and public keys, loaded from files
token_minting.py       tokens made by `leasehold token`
hosts.py               hosts and origins, parsed and compared
"""
