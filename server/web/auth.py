"""Keys: who asks, told from the Authorization header."""

import hashlib
import hmac
from typing import Iterable

from ..errors import Unauthorized


def owner_of(authorization: str, api_keys: Iterable[str]) -> str:
    """A digest of the key in an Authorization header, "" on a server without keys. Raises Unauthorized.

    Every key is compared, each in constant time, so that the time taken tells nothing.
    """
    api_keys = list(api_keys)
    if not api_keys:
        return ""
    scheme, _, sent = authorization.partition(" ")
    given = hashlib.sha256(sent.strip().encode("latin-1")).digest()  # the bytes as they came
    found = False
    for api_key in api_keys:
        found |= hmac.compare_digest(given, hashlib.sha256(api_key.encode()).digest())
    if not found or scheme.lower() != "bearer":
        raise Unauthorized()
    return hashlib.sha256(b"owner:" + given).hexdigest()[:32]
