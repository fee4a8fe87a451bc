"""Who a request belongs to. The one place that turns a bearer token into a tenant."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import Unauthorized

logger = logging.getLogger(__name__)

PUBLIC = "public"
# A changed file counts from the first request this long after it was last looked at.
LOOK_S = 1.0
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


class WatchedTenants:
    """The tokens of a file, read again when it changes. A file that cannot be read any more changes nothing.

    Raises what `read_tenants` raises, when it is made.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._tenants = read_tenants(path)
        self._looked = time.monotonic()

    def of(self, authorization: str | None) -> str:
        """The tenant of an `Authorization` header. Raises `Unauthorized`."""
        if self._path is not None and time.monotonic() - self._looked >= LOOK_S:
            self._look()
        return self._tenants.of(authorization)

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            # Also where it is no good: it is told of once.
            self._stamp = stamp
            self._tenants = read_tenants(self._path)
        except (OSError, ValueError) as exc:
            logger.error("the tokens stay as they were: %s", exc)  # noqa: TRY400 - the message says it all
        else:
            logger.info("tokens read again", extra={"tokens": len(self._tenants.by_digest)})


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    """What differs when a file has changed or another took its place."""
    if path is None:
        return None
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino
