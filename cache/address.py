"""Store addresses: parsed strictly, and never shown with their password."""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cache.errors import InvalidStoreUrl

SINGLE = ("redis", "rediss")
SENTINEL = ("redis+sentinel", "rediss+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster")
SCHEMES = (*SINGLE, "unix", "memory", *SENTINEL, *CLUSTER)
_TLS_QUERY = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_QUERY = {
    "redis": {"db"},
    "unix": {"db"},
    "memory": set[str](),
    "redis+sentinel": {"db", "sentinel_username", "sentinel_password", "read_replicas"},
    "redis+cluster": {"read_replicas"},
}
_PORTS = {scheme: 26379 if scheme in SENTINEL else 6379 for scheme in SCHEMES}
_NODE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:,/@]+)(?::(?P<port>\d{1,5}))?")
_MAX_PORT = 65535
_YES = {"true": True, "false": False}

Node = tuple[str, int]


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a store is. TLS files are paths of PEM files.

    Attributes:
        scheme: One of `SCHEMES`.
        nodes: Host and port of the server, of the sentinels, or of some of a cluster's nodes.
        path: The socket's path, for unix.
        service: The name by which sentinels know the primary.
        db: The database's number.
        username: Of the servers.
        password: Of the servers.
        sentinel_username: Of the sentinels, where they ask for one.
        sentinel_password: Of the sentinels, likewise.
        read_replicas: Values are read from replicas first, and from the primary what is not there yet.
        ca_file: Who vouches for the servers' certificates.
        certificate_file: What is shown to the servers.
        key_file: Its private key.
    """

    scheme: str
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    read_replicas: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    @property
    def has_tls(self) -> bool:
        """The servers are spoken to over TLS."""
        return self.scheme.startswith("rediss")

    def __str__(self) -> str:
        """The address without user names and passwords, fit for logs."""
        if self.scheme == "memory":
            return "memory://"
        if self.scheme == "unix":
            return f"unix://{self.path}?db={self.db}"
        nodes = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        if self.scheme in CLUSTER:
            return f"{self.scheme}://{nodes}"
        return f"{self.scheme}://{nodes}/{self.service}{'/' if self.service else ''}{self.db}"


def parse_address(url: str) -> StoreAddress:
    """The address in a store URL. Raises `InvalidStoreUrl`, whose message never contains the URL.

    `redis://[user:password@]host[:port][/db]`, `unix://[user:password@]/path/to/socket[?db=]`, `memory://`,
    `redis+sentinel://[user:password@]sentinel[:port][,sentinel…]/service[/db][?sentinel_username=&sentinel_password=]`,
    `redis+cluster://[user:password@]node[:port][,node…]`, both with `?read_replicas=true`; and `rediss…://` for TLS,
    with `?ssl_ca_certs=&ssl_certfile=&ssl_keyfile=`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidStoreUrl("the store's URL has a malformed host or port") from None
    if parts.scheme not in SCHEMES:
        raise InvalidStoreUrl(f"the store's URL must start with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    query = _query(parts)
    who, _, where = parts.netloc.rpartition("@")
    username, _, password = who.partition(":")
    service, in_path = _service_and_db(parts)
    return StoreAddress(
        scheme=parts.scheme,
        nodes=() if parts.scheme in ("unix", "memory") else _nodes(where, parts.scheme),
        path=_socket_path(parts),
        service=service,
        db=_db(query.get("db", in_path) or "0"),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        read_replicas=_yes(query.get("read_replicas", "false")),
        ca_file=query.get("ssl_ca_certs"),
        certificate_file=query.get("ssl_certfile"),
        key_file=query.get("ssl_keyfile"),
    )


def _query(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    known = _QUERY[parts.scheme.replace("rediss", "redis")] | (
        _TLS_QUERY if parts.scheme.startswith("rediss") else set[str]()
    )
    if len(query) != len(pairs) or query.keys() - known:
        allowed = ", ".join(sorted(known)) or "no parameters"
        raise InvalidStoreUrl(f"a {parts.scheme}:// URL takes {allowed}, each once")
    return query


def _nodes(text: str, scheme: str) -> tuple[Node, ...]:
    """`host[:port][,…]`; one server may leave its host out."""
    if not text and scheme in SINGLE:
        return (("localhost", _PORTS[scheme]),)
    found = [_NODE.fullmatch(part) for part in text.split(",")]
    nodes = tuple((each["host"].strip("[]"), int(each["port"] or _PORTS[scheme])) for each in found if each)
    if len(nodes) != len(found) or any(not 0 < port <= _MAX_PORT for _, port in nodes):
        raise InvalidStoreUrl("the store's URL has a malformed host or port")
    if scheme in SINGLE and len(nodes) > 1:
        raise InvalidStoreUrl(f"a {scheme}:// URL names one server; use {scheme}+cluster:// or {scheme}+sentinel://")
    return nodes


def _service_and_db(parts: SplitResult) -> tuple[str, str]:
    path = parts.path.strip("/")
    if parts.scheme in SENTINEL:
        service, _, db = path.partition("/")
        if not service:
            raise InvalidStoreUrl(f"a {parts.scheme}:// URL names the primary that its sentinels watch: /service")
        return unquote(service), db
    if parts.scheme in CLUSTER and path:
        raise InvalidStoreUrl("a cluster has no databases: nothing may follow its nodes")
    return "", path if parts.scheme in SINGLE else ""


def _socket_path(parts: SplitResult) -> str:
    if parts.scheme != "unix":
        return ""
    if not parts.path:
        raise InvalidStoreUrl("a unix:// URL needs the socket's path")
    return unquote(parts.path)


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise InvalidStoreUrl("the database in the store's URL must be a number")
    return int(text)


def _yes(text: str) -> bool:
    if text not in _YES:
        raise InvalidStoreUrl("read_replicas in the store's URL must be true or false")
    return _YES[text]
