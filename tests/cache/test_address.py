"""Store URLs."""

import pytest

from cache import InvalidStoreUrl, open_store, parse_address


def test_a_redis_url_is_read() -> None:
    """Host, port, database, user and password are read, percent-decoded once."""
    address = parse_address("redis://us%40er:p%2540ss@cache.example:7000/3")
    assert (address.nodes, address.db) == ((("cache.example", 7000),), 3)
    assert (address.username, address.password) == ("us@er", "p%40ss")


def test_a_unix_url_is_read() -> None:
    """The path is the socket's, the database a parameter."""
    address = parse_address("unix:///run/lookonce/cache.sock?db=2")
    assert (address.path, address.db) == ("/run/lookonce/cache.sock", 2)


def test_tls_files_are_read() -> None:
    """A rediss URL names its PEM files."""
    assert parse_address("rediss://cache?ssl_ca_certs=/ca.pem").ca_file == "/ca.pem"


@pytest.mark.parametrize("url", ["redis://:hunter2@cache:1/0", "unix://:hunter2@/sock", "rediss://u:hunter2@[::1]:7"])
def test_a_password_is_never_shown(url: str) -> None:
    """Neither the text nor the representation of an address holds the password."""
    address = parse_address(url)
    assert address.password == "hunter2"
    assert "hunter2" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://u:hunter2@cache",
        "redis://u:hunter2@cache:port",
        "redis://u:hunter2@cache:99999",
        "redis://u:hunter2@cache/one",
        "redis://u:hunter2@cache/0?socket_timeout=1",
        "redis://u:hunter2@cache?db=1&db=2",
        "redis://u:hunter2@[cache",
        "unix://:hunter2@",
        "memory://?password=hunter2",
        "redis://u:hunter2@a,b",
        "redis+sentinel://u:hunter2@a",
        "redis+sentinel://u:hunter2@/images",
        "redis+cluster://u:hunter2@",
        "redis+cluster://u:hunter2@a/1",
        "redis+cluster://u:hunter2@a,,b",
        "redis+cluster://u:hunter2@a?ssl_ca_certs=/ca.pem",
        "redis+cluster://u:hunter2@a?read_replicas=hunter2",
    ],
)
def test_a_url_that_cannot_be_understood_is_refused(url: str) -> None:
    """The error says what is wrong and holds nothing of the URL."""
    with pytest.raises(InvalidStoreUrl) as caught:
        open_store(url)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_sentinels_are_read() -> None:
    """Every sentinel, what they call the primary, and the users of both."""
    address = parse_address("redis+sentinel://u:p@one,[::1]:7,two:26380/images/2?sentinel_password=s")
    assert address.nodes == (("one", 26379), ("::1", 7), ("two", 26380))
    assert (address.service, address.db) == ("images", 2)
    assert (address.password, address.sentinel_password) == ("p", "s")
    assert str(address) == "redis+sentinel://one:26379,[::1]:7,two:26380/images/2"


def test_a_clusters_nodes_are_read() -> None:
    """Any of them will do; TLS and reading from replicas are said in the URL."""
    address = parse_address("rediss+cluster://a:1,b?read_replicas=true&ssl_ca_certs=/ca.pem")
    assert address.nodes == (("a", 1), ("b", 6379))
    assert address.read_replicas
    assert address.has_tls
    assert address.ca_file == "/ca.pem"
