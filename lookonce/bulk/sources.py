"""Where images come from: what a command line names, as items one after the other. Nothing is read ahead."""

import os
from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from itertools import chain
from pathlib import Path
from typing import Protocol

from lookonce.bulk.dataset import Dataset, is_dataset
from lookonce.bulk.errors import NoSuchSource
from lookonce.bulk.question_file import QuestionFile
from lookonce.bulk.work import Item
from lookonce.client.pictures import is_reference

# Endings of the files in a folder or a pattern that are images; a file that is named itself may have any.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
QUESTION_FILE = ".jsonl"


class Source(Protocol):
    """Items in an order that is the same in every run."""

    def __iter__(self) -> Iterator[Item]:
        """The items."""

    def __len__(self) -> int:
        """How many there are, counted now."""


class Named:
    """One image that is named itself: a file, or what the server knows or fetches."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __iter__(self) -> Iterator[Item]:
        """The image; one that is not there is a fault of its own."""
        yield Item(key=self._name, name=self._name, pictures=(self._name,))

    def __len__(self) -> int:
        """One."""
        return 1


class Album:
    """Several images that are asked about together."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def __iter__(self) -> Iterator[Item]:
        """The one item."""
        yield Item(key="\n".join(self._names), name=", ".join(self._names), pictures=self._names)

    def __len__(self) -> int:
        """One."""
        return 1


class Folder:
    """Every image below a folder, in the order of the names, the files of a folder before those of its folders."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Item]:
        """The images; hidden files and folders are left out, links to folders not followed."""
        return map(file_item, self._files())

    def __len__(self) -> int:
        """How many images there are now."""
        return sum(1 for _ in self._files())

    def _files(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self._path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (os.path.join(folder, name) for name in sorted(files) if is_image_name(name))


class Files:
    """Files, known by their names."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)

    def __iter__(self) -> Iterator[Item]:
        """An item each."""
        return map(file_item, self._paths)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths)


class Sources:
    """Several sources, one after the other."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)

    def __iter__(self) -> Iterator[Item]:
        """All their items."""
        return chain.from_iterable(self._sources)

    def __len__(self) -> int:
        """How many items they have."""
        return sum(map(len, self._sources))


def sources(names: Sequence[str]) -> Sources:
    """The sources that a command line names: files, folders, patterns, data sets on disk, JSONL files, ids, URLs.

    Raises:
        NoSuchSource: a pattern or a folder has no image; a data set has no images.
        MissingExtra: a data set, and pyarrow is not installed.
    """
    return Sources(source(name) for name in names)


def source(name: str) -> Source:
    """What one word of a command line names. Raises like `sources`."""
    path = Path(name)
    if is_reference(name):
        return Named(name)
    if path.is_dir():
        return Dataset(path) if is_dataset(path) else _some(Folder(path), f"there is no image in the folder {name}")
    if path.suffix == QUESTION_FILE:
        return QuestionFile(path)
    if has_magic(name) and not path.exists():
        return _some(Files(_matches(name)), f"no image matches {name}")
    return Named(name)


def brings_questions(name: str) -> bool:
    """Whether what a word of a command line names may have questions of its own."""
    path = Path(name)
    return path.suffix == QUESTION_FILE or (path.is_dir() and is_dataset(path))


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def file_item(path: str) -> Item:
    """The item of a file."""
    return Item(key=path, name=path, pictures=(path,))


def _matches(pattern: str) -> list[str]:
    """Images that match a pattern, `**` through folders, sorted by name."""
    matches = sorted(glob(pattern, recursive=True))
    return [match for match in matches if os.path.isfile(match) and is_image_name(os.path.basename(match))]


def _some(found: Source, otherwise: str) -> Source:
    if next(iter(found), None) is None:
        raise NoSuchSource(otherwise)
    return found
