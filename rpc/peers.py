"""How the processes of a deployment know each other: certificates and tokens, read once and given to gRPC.

Source: https://grpc.io/docs/guides/auth/. Tokens go over TLS only; gRPC itself would not send them otherwise.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from rpc.tokens import WatchedTokens, read_own_token


class PeersUnusable(ValueError):
    """A certificate, key or tokens file that cannot be used. The message names the flag."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What a process is told of itself and the others. Raises `ValueError` for what does not go together."""

    # PEM file of the certificate that this process shows to the other processes. A worker with one speaks TLS only.
    cert: str | None = None
    # PEM file of its private key.
    key: str | None = None
    # PEM file of the authority that signed the others' certificates. A worker then asks its callers for one (mTLS).
    ca: str | None = None
    # File of TOKEN TENANT lines. A worker takes calls with one of these tokens only, and for that tenant, or for any
    # where the tenant is *; who calls shows the first token of *. TLS only.
    tokens_file: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("peer_cert and peer_key belong together: give both or neither")
        if self.tokens_file is not None and self.cert is None and self.ca is None:
            raise ValueError("peer_tokens_file needs TLS: give peer_cert and peer_key, or peer_ca")


class Identity:
    """What a process shows to others and asks of them.

    Attributes:
        tokens: Whose calls a worker takes; None: anybody's.

    Raises:
        PeersUnusable: a file cannot be read, is no PEM file, or does not belong to the other.
    """

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._cert = _read("--peer-cert", settings.cert)
        self._key = _read("--peer-key", settings.key)
        self._ca = _read("--peer-ca", settings.ca)
        _check_pem(settings)
        try:
            self.tokens = None if settings.tokens_file is None else WatchedTokens(settings.tokens_file)
        except (OSError, ValueError) as exc:
            raise PeersUnusable(f"--peer-tokens-file: {_words(exc)}") from exc

    @property
    def server_credentials(self) -> grpc.ServerCredentials | None:
        """Of a server; None: plain text."""
        if self._key is None or self._cert is None:
            return None
        return grpc.ssl_server_credentials(
            [(self._key, self._cert)], root_certificates=self._ca, require_client_auth=self._ca is not None
        )

    @property
    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Of a channel; None: plain text. Raises `PeersUnusable` where no token is for all tenants."""
        if self._ca is None and self._cert is None:
            return None
        wire = grpc.ssl_channel_credentials(self._ca, self._key, self._cert)
        if self._settings.tokens_file is None:
            return wire
        try:
            token = read_own_token(self._settings.tokens_file)
        except (OSError, ValueError) as exc:
            raise PeersUnusable(f"--peer-tokens-file: {_words(exc)}") from exc
        return grpc.composite_channel_credentials(wire, grpc.access_token_call_credentials(token))


def _read(flag: str, path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as exc:
        raise PeersUnusable(f"{flag}: {_words(exc)}") from exc


def _check_pem(settings: PeerSettings) -> None:
    """GRPC says nothing of a bad file until somebody calls, and then not which."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if settings.cert is not None:
            context.load_cert_chain(settings.cert, settings.key)
    except (ssl.SSLError, OSError) as exc:
        raise PeersUnusable("--peer-cert and --peer-key are not a certificate and its key as PEM files") from exc
    try:
        if settings.ca is not None:
            context.load_verify_locations(settings.ca)
    except (ssl.SSLError, OSError) as exc:
        raise PeersUnusable("--peer-ca is not a PEM file of certificates") from exc


def _words(exc: Exception) -> str:
    return (exc.strerror or "cannot be read") if isinstance(exc, OSError) else str(exc)


PLAIN = Identity(PeerSettings())
