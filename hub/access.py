"""The hub's protocol: what a repository holds, whole files, byte ranges. Every failure leaves as a HubError.

Metadata, whole files and tokens are huggingface_hub's; byte ranges of a file are asked for here.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils._headers import build_hf_headers
from tqdm import tqdm

from hub.errors import AccessRefused, DownloadBroken, HubError, HubUnreachable, NotOnHub
from hub.progress import Meter
from hub.reference import HubModel

SHA256 = re.compile(r"[0-9a-f]{64}")
ATTEMPTS = 5
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Which hub, and how it is asked."""

    endpoint: str
    cache_dir: Path  # huggingface_hub's cache; ours lies in it
    token: str | None = field(repr=False)
    offline: bool


def from_environment() -> HubSettings:
    """As huggingface_hub reads it: HF_ENDPOINT, HF_HUB_CACHE or HF_HOME, HF_TOKEN or its file, HF_HUB_OFFLINE."""
    return HubSettings(
        constants.ENDPOINT, Path(constants.HF_HUB_CACHE), huggingface_hub.get_token(), constants.HF_HUB_OFFLINE
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """What a revision of a repository is."""

    commit: str
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the hub says of a file. `sha256` is None where its etag is not one."""

    size: int
    sha256: str | None


class Hub:
    """One hub, as one process asks it. Methods may be called from several threads."""

    def __init__(self, settings: HubSettings) -> None:
        self.settings = settings
        self._api = huggingface_hub.HfApi(
            endpoint=settings.endpoint, token=settings.token or False, library_name="lookonce"
        )
        self._client = httpx.Client(follow_redirects=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)

    def close(self) -> None:
        """Closes the connections for byte ranges."""
        self._client.close()

    def listing(self, model: HubModel) -> Listing:
        """The commit that the revision is now, and its files."""
        with _translated(model, self.settings):
            info = self._api.model_info(model.repo, revision=model.revision)
        if info.sha is None:
            raise DownloadBroken(f"{self.settings.endpoint} does not say which commit {model} is")
        return Listing(info.sha, frozenset(each.rfilename for each in info.siblings or ()))

    def facts(self, model: HubModel, file_name: str) -> FileFacts:
        """A file's size and checksum."""
        with _translated(model, self.settings):
            found = self._api.get_hf_file_metadata(url=self._url(model, file_name))
        if found.size is None:
            raise DownloadBroken(f"{self.settings.endpoint} does not say how large {file_name} of {model} is")
        etag = found.etag or ""
        return FileFacts(found.size, etag if SHA256.fullmatch(etag) else None)

    def cached(self, model: HubModel, file_name: str) -> Path | None:
        """A whole file that is here already, whoever downloaded it. `model.revision` is a commit."""
        found = huggingface_hub.try_to_load_from_cache(
            model.repo, file_name, cache_dir=self.settings.cache_dir, revision=model.revision
        )
        return Path(found) if isinstance(found, str) else None

    def whole(self, model: HubModel, file_name: str, meter: Meter) -> Path:
        """Downloads a whole file, going on where an earlier attempt ended; where it lies."""
        with _translated(model, self.settings):
            return Path(
                huggingface_hub.hf_hub_download(
                    model.repo,
                    file_name,
                    revision=model.revision,
                    cache_dir=self.settings.cache_dir,
                    endpoint=self.settings.endpoint,
                    token=self.settings.token or False,
                    library_name="lookonce",
                    tqdm_class=_forwarding(meter),
                )
            )

    def pieces(self, model: HubModel, file_name: str, begin: int, end: int, size: int) -> Iterator[bytes]:
        """The bytes [begin, end) of a file of `size` bytes, in order; goes on where a connection broke."""
        failures = 0
        while begin < end:
            try:
                for piece in self._try(model, file_name, begin, end, size):
                    begin, failures = begin + len(piece), 0
                    yield piece
            except (httpx.TransportError, _ComeBack) as exc:
                failures += 1
                if failures == ATTEMPTS:
                    raise HubUnreachable(f"{file_name} of {model}: {exc or type(exc).__name__}") from exc
                time.sleep(PAUSES_S[failures - 1])

    def _try(self, model: HubModel, file_name: str, begin: int, end: int, size: int) -> Iterator[bytes]:
        headers = build_hf_headers(token=self.settings.token or False, library_name="lookonce") | {
            "Range": f"bytes={begin}-{end - 1}",
            "Accept-Encoding": "identity",
        }
        with self._client.stream("GET", self._url(model, file_name), headers=headers) as reply:
            _check(reply, model, f"bytes {begin}-{end - 1}/{size}", file_name)
            left = end - begin
            for piece in reply.iter_raw():
                left -= len(piece)
                if left < 0:
                    raise DownloadBroken(f"more bytes of {file_name} came than were asked for")
                yield piece
            if left:
                raise _ComeBack("the connection ended early")

    def _url(self, model: HubModel, file_name: str) -> str:
        return huggingface_hub.hf_hub_url(
            model.repo, file_name, revision=model.revision, endpoint=self.settings.endpoint
        )


class _ComeBack(Exception):
    """A failure that may pass."""


def _check(reply: httpx.Response, model: HubModel, content_range: str, file_name: str) -> None:
    status = reply.status_code
    if status in TRANSIENT:
        raise _ComeBack(f"the hub answers {status}")
    if status in (401, 403):
        raise AccessRefused(f"{file_name} of {model} is refused ({status}): is HF_TOKEN good for it?")
    if status == 404:
        raise NotOnHub(f"{model} has no {file_name}")
    if status != 206 or reply.headers.get("content-range") != content_range:
        raise DownloadBroken(f"the hub did not give the range {content_range} of {file_name} (status {status})")


def _forwarding(meter: Meter) -> type["tqdm[Any]"]:
    """A progress bar that shows nothing and tells a meter."""

    class Forwarding(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            meter.advance(int(n or 0))

    return Forwarding


@contextlib.contextmanager
def _translated(model: HubModel, settings: HubSettings) -> Iterator[None]:
    try:
        yield
    except (errors.HTTPError, errors.HFValidationError, OSError, ValueError) as exc:  # type: ignore[attr-defined]  # its HTTP library's root
        raise _translation(exc, model, settings) from exc


def _translation(exc: Exception, model: HubModel, settings: HubSettings) -> HubError:
    endpoint = settings.endpoint
    match exc:
        case errors.GatedRepoError():
            return AccessRefused(f"{model.repo} is gated: accept its terms at {endpoint}/{model.repo} and set HF_TOKEN")
        case errors.RevisionNotFoundError():
            return NotOnHub(f"{model.repo} has no revision {model.revision} at {endpoint}")
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            return NotOnHub(
                f"{model.repo} is no directory here and no model at {endpoint}; a private one needs HF_TOKEN"
            )
        case errors.RemoteEntryNotFoundError():
            return NotOnHub(f"a file of {model} is not at {endpoint}")
        case errors.HfHubHTTPError() if exc.response is not None and exc.response.status_code in (401, 403):
            return AccessRefused(f"{endpoint} refuses {model} ({exc.response.status_code}): is HF_TOKEN good for it?")
        case errors.HfHubHTTPError() if exc.response is not None:
            return HubUnreachable(f"{endpoint} answers {exc.response.status_code} for {model}")
        case errors.HTTPError() | errors.LocalEntryNotFoundError():  # type: ignore[attr-defined]
            return HubUnreachable(f"{endpoint} does not answer, and {model} is not complete here")
        case OSError() if exc.strerror:
            return DownloadBroken(f"{model} cannot be written to {settings.cache_dir}: {exc.strerror}")
        case _:
            return DownloadBroken(f"{model} from {endpoint}: {exc}")
