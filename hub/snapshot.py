"""Our directory of one commit of a model: links to whole files, partial shards, and which halves are complete.

`CACHE/.lookonce/ORG/NAME@COMMIT`, and for each branch or tag that was asked for a link `NAME@REVISION` to it.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from checkpoint import CheckpointError, Half
from checkpoint.description import family_of, read_config
from checkpoint.survey import survey
from hub.reference import HubModel

FOLDER = ".lookonce"


def snapshot_dir(cache_dir: Path, model: HubModel) -> Path:
    """Where a revision lies, or the link to where it lies."""
    org, _, name = model.repo.partition("/")
    return cache_dir / FOLDER / org / f"{name}@{model.revision.replace('/', '--')}"


def link(directory: Path, file_name: str, target: Path) -> None:
    """Makes `file_name` in the directory stand for a file in huggingface_hub's cache."""
    _replace_by_link(directory / file_name, target.absolute())


def point(cache_dir: Path, model: HubModel, directory: Path) -> None:
    """Makes a revision's name lead to a commit's directory."""
    reference = snapshot_dir(cache_dir, model)
    if reference != directory:
        _replace_by_link(reference, Path(directory.name))


def mark_complete(directory: Path, half: Half, file_names: Iterable[str]) -> None:
    """Notes that all of a half is here; `file_names` are the files beside its weights."""
    new = directory / f"{_marker(half)}.new"
    new.write_text(json.dumps({"files": sorted(file_names)}))
    os.replace(new, directory / _marker(half))


def complete(cache_dir: Path, model: HubModel, halves: Iterable[Half]) -> Path | None:
    """The directory of a revision of which these halves are all here; None where something is missing."""
    with contextlib.suppress(OSError):
        directory = snapshot_dir(cache_dir, model).resolve(strict=True)
        if all(_is_complete(directory, half) for half in halves):
            return directory
    return None


def _is_complete(directory: Path, half: Half) -> bool:
    try:
        names = json.loads((directory / _marker(half)).read_bytes())["files"]
        if not all((directory / name).exists() for name in names):
            return False
        return not survey(directory, family_of(read_config(directory), directory), half).faults
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return False


def _marker(half: Half) -> str:
    return f"complete-{half}.json"


def _replace_by_link(path: Path, target: Path) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, path)
