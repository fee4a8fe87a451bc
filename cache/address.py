"""Store addresses: parsed strictly, and never shown with their password."""

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cache.errors import InvalidStoreUrl, UnsupportedStore

SCHEMES = ("redis", "rediss", "unix", "memory")
_PLANNED = ("redis+sentinel", "redis+cluster")
_QUERY = {
    "redis": {"db"},
    "unix": {"db"},
    "rediss": {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"},
    "memory": set[str](),
}


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a store is. TLS files are paths of PEM files."""

    scheme: str
    host: str = ""
    port: int = 6379
    # The socket's path, for unix.
    path: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def __str__(self) -> str:
        """The address without user name and password, fit for logs."""
        if self.scheme == "memory":
            return "memory://"
        if self.scheme == "unix":
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.db}"


def parse_address(url: str) -> StoreAddress:
    """The address in a store URL. Raises `InvalidStoreUrl`, whose message never contains the URL.

    `redis://[user:password@]host[:port][/db]`, `rediss://` the same with `?ssl_ca_certs=&ssl_certfile=&ssl_keyfile=`,
    `unix://[user:password@]/path/to/socket[?db=]`, `memory://`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidStoreUrl("the store's URL has a malformed host or port") from None
    if parts.scheme in _PLANNED:
        raise UnsupportedStore(parts.scheme)
    if parts.scheme not in SCHEMES:
        raise InvalidStoreUrl(f"the store's URL must start with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    query = _query(parts)
    return StoreAddress(
        scheme=parts.scheme,
        host=parts.hostname or ("localhost" if parts.scheme.startswith("redis") else ""),
        port=6379 if port is None else port,
        path=_socket_path(parts),
        db=_db(parts, query),
        username=None if not parts.username else unquote(parts.username),
        password=None if not parts.password else unquote(parts.password),
        ca_file=query.get("ssl_ca_certs"),
        certificate_file=query.get("ssl_certfile"),
        key_file=query.get("ssl_keyfile"),
    )


def _query(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs) or query.keys() - _QUERY[parts.scheme]:
        allowed = ", ".join(sorted(_QUERY[parts.scheme])) or "no parameters"
        raise InvalidStoreUrl(f"a {parts.scheme}:// URL takes {allowed}, each once")
    return query


def _socket_path(parts: SplitResult) -> str:
    if parts.scheme != "unix":
        return ""
    if not parts.path:
        raise InvalidStoreUrl("a unix:// URL needs the socket's path")
    return unquote(parts.path)


def _db(parts: SplitResult, query: dict[str, str]) -> int:
    in_path = parts.path.strip("/") if parts.scheme.startswith("redis") else ""
    text = query.get("db", in_path) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise InvalidStoreUrl("the database in the store's URL must be a number")
    return int(text)
