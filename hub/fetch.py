"""From a model's name to a directory that holds what these halves need, and of the weights nothing else."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from checkpoint import Half
from hub.access import Hub
from hub.download import Download
from hub.errors import DownloadBroken, NotOnThisHost
from hub.progress import MeterFactory, silent
from hub.reference import HubModel
from hub.snapshot import complete, point, snapshot_dir

logger = logging.getLogger(__name__)

POLL_S = 0.2


def fetch(
    model: HubModel, halves: Sequence[Half], hub: Hub, meters: MeterFactory = silent, *, refresh: bool = False
) -> Path:
    """The directory of a checkpoint with these halves complete.

    What was completed before is taken as it is, without asking the hub; `refresh` asks what the revision is by now.
    Raises HubError; CheckpointError where the headers show that the checkpoint cannot be served, before any weight is
    downloaded.
    """
    cache_dir = hub.settings.cache_dir
    known = complete(cache_dir, model, halves)
    if known is not None and (hub.settings.offline or not refresh):
        return known
    with _download(model, hub, meters) as download:
        if complete(cache_dir, download.model, halves) is None:
            download.run(halves)
        point(cache_dir, model, download.directory)
    return download.directory.resolve()


def fetch_headers(model: HubModel, hub: Hub) -> Path:
    """A directory in which the whole checkpoint can be inspected: its configuration and headers, no weights.

    Raises HubError. What was completed before is taken as it is.
    """
    known = complete(hub.settings.cache_dir, model, list(Half))
    if known is not None:
        return known
    with _download(model, hub, silent) as download:
        download.headers(list(Half))
    return download.directory.resolve()


@contextlib.contextmanager
def _download(model: HubModel, hub: Hub, meters: MeterFactory) -> Iterator[Download]:
    """A download of what the revision is now, which no other process has in hand."""
    if hub.settings.offline:
        raise NotOnThisHost(f"{model} is not complete in {hub.settings.cache_dir}, and HF_HUB_OFFLINE is set")
    listing = hub.listing(model)
    commit = replace(model, revision=listing.commit)
    directory = snapshot_dir(hub.settings.cache_dir, commit)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", poll_interval=POLL_S)
    except OSError as exc:
        raise DownloadBroken(f"{directory} cannot be made: {exc.strerror}") from exc
    with _held(lock, model):
        yield Download(hub, commit, listing.files, directory, meters)


@contextlib.contextmanager
def _held(lock: FileLock, model: HubModel) -> Iterator[None]:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info("another process downloads %s: waiting for it", model)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
