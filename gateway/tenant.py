"""Who a request belongs to. The one place that turns a bearer token into a tenant."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import Unauthorized

PUBLIC = "public"
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
BEARER = "bearer "


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Tenants:
    """The known tokens, kept as digests, so that looking one up takes no longer for a nearly right one.

    Attributes:
        by_digest: SHA-256 of a token → its tenant. Empty: nobody needs a token.
    """

    by_digest: Mapping[bytes, str]

    def of(self, authorization: str | None) -> str:
        """The tenant of an `Authorization` header.

        Raises:
            Unauthorized: tokens are asked for, and this is not one of them.
        """
        if not self.by_digest:
            return PUBLIC
        if authorization is None or not authorization.lower().startswith(BEARER):
            raise Unauthorized("a token is needed: send it as 'Authorization: Bearer TOKEN'", code="missing_api_key")
        tenant = self.by_digest.get(_digest(authorization[len(BEARER) :].strip()))
        if tenant is None:
            raise Unauthorized("the token is not known here")
        return tenant


def read_tenants(path: str | None) -> Tenants:
    """Reads `TOKEN TENANT` lines; blank lines and those that start with `#` mean nothing.

    Raises:
        ValueError: a line that is neither, by number; a token that is there twice; no token at all.
        OSError: the file cannot be read.
    """
    if path is None:
        return Tenants({})
    known: dict[bytes, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not TENANT.fullmatch(words[1]):
            raise ValueError(f"tokens file, line {number}: write TOKEN TENANT, the tenant of A-Z a-z 0-9 _ . -")
        if _digest(words[0]) in known:
            raise ValueError(f"tokens file, line {number}: this token is there twice")
        known[_digest(words[0])] = words[1]
    if not known:
        raise ValueError("tokens file: it holds no token")
    return Tenants(known)
