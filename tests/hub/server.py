"""A hub of the tests' own: the protocol of model hubs over directories, with a second server as its CDN.

Every byte of a body that it sends is counted, by file, so that a test can say what a download cost.
"""

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = ".safetensors"
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")


@dataclass(slots=True)
class Repository:
    """One model: its files, who may see it, and whether its terms are accepted."""

    directory: Path
    token: str | None = None
    gated: bool = False
    commit: str = "a" * 40


@dataclass(slots=True)
class TestHub:
    """A running hub.

    Attributes:
        sent: Bytes of bodies by file name; the listing counts as "api".
        requests: "METHOD file" of everything that was asked.
        cdn_authorization: The Authorization headers that reached the CDN.
        break_after: The next bodies of large files end after so many bytes; 0: none does.
        refuse_next: So many of the next requests of the CDN are answered 503.
        silent_after: So many requests of the CDN are answered, the others 503; None: all are answered.
        stall: A file of which the CDN sends nothing beyond its header until `let_go`.
        stalled: Set once it has been asked for.
        ignores_ranges: Range headers are not looked at.
        corrupt: Large files are sent with their last byte changed.
    """

    __test__ = False

    repositories: dict[str, Repository] = field(default_factory=dict)
    url: str = ""
    cdn_url: str = ""
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    cdn_authorization: list[str] = field(default_factory=list)
    break_after: int = 0
    refuse_next: int = 0
    silent_after: int | None = None
    stall: str | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    going: threading.Event = field(default_factory=threading.Event)
    ignores_ranges: bool = False
    corrupt: bool = False
    counting: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, directory: Path, **options: object) -> Repository:
        """Serves a directory as a model."""
        self.repositories[name] = Repository(directory, **options)  # type: ignore[arg-type]
        return self.repositories[name]

    def let_go(self) -> None:
        """Ends the stall."""
        self.stall = None
        self.going.set()

    def forget(self) -> None:
        """Counts anew."""
        self.sent.clear()
        self.requests.clear()


class _Handler(BaseHTTPRequestHandler):
    hub: TestHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if match := RESOLVE.fullmatch(path):
            self._resolve(*match.groups())
        elif match := API.fullmatch(path):
            self._list(*match.groups())
        else:
            self._end(404)

    def _repository(self, name: str, revision: str | None) -> Repository | None:
        repository = self.hub.repositories.get(name)
        authorized = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token not in (None, authorized) and not repository.gated):
            self._end(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        if repository.gated and repository.token != authorized:
            self._end(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return None
        if revision not in (None, "main", repository.commit):
            self._end(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return None
        return repository

    def _list(self, name: str, revision: str | None) -> None:
        self.hub.requests.append(f"{self.command} api")
        if repository := self._repository(name, revision):
            files = [{"rfilename": path.name} for path in sorted(repository.directory.iterdir())]
            body = json.dumps({"id": name, "modelId": name, "sha": repository.commit, "siblings": files}).encode()
            self._send(200, body, "api", {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file_name: str) -> None:
        self.hub.requests.append(f"{self.command} {file_name}")
        repository = self._repository(name, revision)
        if repository is None:
            return
        path = repository.directory / file_name
        commit = {"X-Repo-Commit": repository.commit}
        if not path.is_file():
            self._end(404, commit | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        data = path.read_bytes()
        if not file_name.endswith(LARGE):
            self._send(200, data, file_name, commit | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})  # noqa: S324
            return
        linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        self._end(302, commit | linked | {"Location": f"{self.hub.cdn_url}/{name}/{file_name}"})

    def _send(self, status: int, data: bytes, file_name: str, headers: dict[str, str]) -> None:
        self._head(status, headers | {"Content-Length": str(len(data))})
        if self.command == "GET":
            self.hub.sent[file_name] += len(data)
            # The client of a download that was killed is gone.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _end(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._head(status, (headers or {}) | {"Content-Length": "0"})


class _Cdn(_Handler):
    def _route(self) -> None:
        org, name, file_name = self.path.strip("/").split("/")
        if authorization := self.headers.get("Authorization"):
            self.hub.cdn_authorization.append(authorization)
        if self._refuses():
            self._end(503)
            return
        data = (self.hub.repositories[f"{org}/{name}"].directory / file_name).read_bytes()
        if self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._range(data, file_name)

    def _refuses(self) -> bool:
        with self.hub.counting:
            if self.hub.refuse_next:
                self.hub.refuse_next -= 1
                return True
            if self.hub.silent_after is None:
                return False
            self.hub.silent_after -= 1
            return self.hub.silent_after < 0

    def _stall(self, file_name: str, begin: int, data: bytes) -> None:
        """Holds back what is beyond the header, as a connection does that has died unnoticed."""
        if file_name == self.hub.stall and begin >= 8 + int.from_bytes(data[:8], "little"):
            self.hub.stalled.set()
            self.hub.going.wait()

    def _range(self, data: bytes, file_name: str) -> None:
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        begin, end, status, headers = 0, len(data), 200, {"Accept-Ranges": "bytes"}
        if asked and not self.hub.ignores_ranges:
            begin, end = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
            status, headers = 206, headers | {"Content-Range": f"bytes {begin}-{end - 1}/{len(data)}"}
        self._stall(file_name, begin, data)
        if self.hub.break_after and end - begin > self.hub.break_after:
            self._head(status, headers | {"Content-Length": str(end - begin)})
            self.hub.sent[file_name] += self.hub.break_after
            self.wfile.write(data[begin : begin + self.hub.break_after])
            self.close_connection = True
            return
        self._send(status, data[begin:end], file_name, headers)


@contextmanager
def serving() -> Iterator[TestHub]:
    """A hub and its CDN on free loopback ports."""
    hub = TestHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": hub})) for kind in (_Handler, _Cdn)
    ]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
