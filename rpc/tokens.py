"""Bearer tokens: whose each one is. They are kept as digests and read again when their file changes."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rpc.watched import Watched

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# Of a token that may speak for every tenant: a gateway's, a language worker's.
ANY_TENANT = "*"
BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Tokens:
    """The known tokens. Looking one up takes no longer for a nearly right one, since its digest is looked up.

    Attributes:
        by_digest: SHA-256 of a token → its tenant.
    """

    by_digest: Mapping[bytes, str]

    def tenant(self, authorization: str) -> str | None:
        """The tenant of `Bearer TOKEN`; None where this is not one of the tokens."""
        if not authorization.lower().startswith(BEARER):
            return None
        return self.by_digest.get(_digest(authorization[len(BEARER) :].strip()))


def read_tokens(path: str) -> Tokens:
    """Reads `TOKEN TENANT` lines, a tenant or `*` for any; blank lines and those that start with `#` mean nothing.

    Raises:
        ValueError: a line that is neither, by number; a token that is there twice; no token at all.
        OSError: the file cannot be read.
    """
    known: dict[bytes, str] = {}
    for number, (token, tenant) in _lines(path):
        if _digest(token) in known:
            raise ValueError(f"tokens file, line {number}: this token is there twice")
        known[_digest(token)] = tenant
    if not known:
        raise ValueError("tokens file: it holds no token")
    return Tokens(known)


def read_own_token(path: str) -> str:
    """The token that a process shows to others: the first that may speak for every tenant.

    Raises:
        ValueError: there is none, or a line is no good.
        OSError: the file cannot be read.
    """
    for _, (token, tenant) in _lines(path):
        if tenant == ANY_TENANT:
            return token
    raise ValueError("tokens file: it holds no token of the tenant *, with which this process could speak for all")


def _lines(path: str) -> list[tuple[int, tuple[str, str]]]:
    found: list[tuple[int, tuple[str, str]]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not (words[1] == ANY_TENANT or TENANT.fullmatch(words[1])):
            raise ValueError(f"tokens file, line {number}: write TOKEN TENANT, the tenant of A-Z a-z 0-9 _ . -, or *")
        found.append((number, (words[0], words[1])))
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class WatchedTokens:
    """The tokens of a file, read again when it changes. A file that cannot be read any more changes nothing.

    Raises what `read_tokens` raises, when it is made.
    """

    def __init__(self, path: str) -> None:
        self._watched = Watched(path, read_tokens, "tokens")

    def tenant(self, authorization: str) -> str | None:
        """The tenant of `Bearer TOKEN`; None where this is not one of the tokens."""
        return self._watched.content().tenant(authorization)
