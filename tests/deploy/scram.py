"""Whether a password is the one of PostgreSQL's verifier: scram.py PASSWORD VERIFIER.

The form of a verifier: https://www.postgresql.org/docs/current/catalog-pg-authid.html
"""

import base64
import hashlib
import hmac
import sys

password, verifier = sys.argv[1:]
method, rounds_and_salt, keys = verifier.split("$")
assert method == "SCRAM-SHA-256", method
rounds, salt = rounds_and_salt.split(":")
stored_key = keys.split(":")[0]
# RFC 5802, section 3.
salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
client_key = hmac.new(salted, b"Client Key", "sha256").digest()
assert base64.b64encode(hashlib.sha256(client_key).digest()).decode() == stored_key, "another password"
