"""Certificates for tests: an authority of their own, and what it signed. Made by the openssl program."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\n"


@dataclass(frozen=True)
class Pair:
    """A certificate, its key, and the authority that signed it, as PEM files."""

    cert: Path
    key: Path
    ca: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """As the flags of a process."""
        return ("--peer-cert", str(self.cert), "--peer-key", str(self.key), "--peer-ca", str(self.ca))


def make_pair(folder: Path) -> Pair:
    """A new authority, and a certificate of its for this machine's loopback. Skips where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program to make certificates with")
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key, cert, key, asked, more = (
        folder / name for name in ("ca.pem", "ca.key", "cert.pem", "cert.key", "asked.csr", "more.txt")
    )
    more.write_text(EXTENSIONS)
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-x509", *new, "-days", "2", "-keyout", ca_key, "-out", ca, "-subj", "/CN=authority")
    _openssl("req", *new, "-keyout", key, "-out", asked, "-subj", "/CN=worker")
    signed = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", more)
    _openssl("x509", "-req", "-in", asked, "-out", cert, *signed)
    return Pair(cert, key, ca)


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
