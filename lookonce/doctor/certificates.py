"""Certificates: until when each is good, those in files and those that servers show."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from lookonce.doctor.findings import Finding, fail, ok, warn
from rpc.peers import PeerSettings

TIMEOUT_S = 5.0
SOON = timedelta(days=14)


def examine_files(peers: PeerSettings, now: datetime | None = None) -> Iterator[Finding]:
    """The certificates that this process was given: every one in each file."""
    for flag, path in (("--peer-cert", peers.cert), ("--peer-ca", peers.ca)):
        if path is None:
            continue
        try:
            found = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            yield fail(flag, "it is not a PEM file of certificates", f"give {flag} a PEM file")
            continue
        yield judge_expiry(f"{flag} {path}", min(each.not_valid_after_utc for each in found), now)


def examine_served(subject: str, host: str, port: int, peers: PeerSettings) -> Iterator[Finding]:
    """The certificate that a server shows, whoever signed it. Nothing for one that does not speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Only its dates are read here; whether it is trusted is told by the calls that the examination makes.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        if peers.cert is not None:
            context.load_cert_chain(peers.cert, peers.key)
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            shown = wrapped.getpeercert(binary_form=True)
    except OSError:
        # Who does not answer, or not in TLS, is told of elsewhere.
        return
    if shown is not None:
        yield judge_expiry(f"certificate of {subject}", x509.load_der_x509_certificate(shown).not_valid_after_utc)


def judge_expiry(subject: str, until: datetime, now: datetime | None = None) -> Finding:
    """What is said of a certificate that is good until then."""
    left = until - (now or datetime.now(UTC))
    day = until.strftime("%Y-%m-%d %H:%M UTC")
    if left <= timedelta(0):
        return fail(subject, f"it expired on {day}: nobody talks to whoever shows it", "renew it and restart that part")
    if left < SOON:
        return warn(subject, f"it expires on {day}, in {left.days} days", "renew it and restart that part")
    return ok(subject, f"good until {day}")
