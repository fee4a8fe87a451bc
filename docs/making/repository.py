"""Files of the repository outside docs/ that documents link to: each is copied into the site, and the link leads there.

What is neither a document nor there is left as it is written, and mkdocs refuses it.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
COPIES = "repository/"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
IMAGES = (".png", ".svg", ".jpg", ".webp")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".proto": "proto"}


class Repository:
    """The repository's files, by the paths that documents name them by."""

    def linked_from(self, documents: Mapping[str, str]) -> dict[str, str | bytes]:
        """Every copy that the documents, and the copies themselves, link to: its place in the site and its content."""
        copies: dict[str, str | bytes] = {}
        waiting = [(place, text) for place, text in documents.items()]
        while waiting:
            place, text = waiting.pop()
            for path in self._outside(text, place):
                copy = _copy_of(path)
                if copy not in copies:
                    copies[copy] = _content(path)
                    waiting += [(copy, path.read_text(encoding="utf-8"))] if path.suffix == ".md" else []
        return copies

    def relinked(self, markdown: str, place: str) -> str:
        """A document's text with its links to the repository's files made links within the site."""

        def relink(match: re.Match[str]) -> str:
            path = ROOT / _path(match[1], place)
            target = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
            if target.startswith(DOCS):
                target = target.removeprefix(DOCS)
            elif path.exists() and target:
                target = _copy_of(path)
            else:
                return match[0]
            return posixpath.relpath(target, posixpath.dirname(place) or ".") + (match[2] or "")

        return LINK.sub(relink, markdown)

    def _outside(self, text: str, place: str) -> Iterator[Path]:
        for target, _ in LINK.findall(text):
            named = _path(target, place)
            path = ROOT / named
            if not named.startswith((DOCS, "..")) and path.exists():
                yield path


def _path(target: str, place: str) -> str:
    """The path in the repository that a link of the document at `place` leads to."""
    here = place.removeprefix(COPIES) if place.startswith(COPIES) else DOCS + place
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), target))


def _copy_of(path: Path) -> str:
    name = COPIES + path.relative_to(ROOT).as_posix()
    return name if path.suffix in (".md", *IMAGES) else name + ".md"


def _content(path: Path) -> str | bytes:
    """A document as it is, a picture's bytes, a folder's names, and any other file as a block of code."""
    title = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f"# {title}/\n\n" + "".join(f"- `{each.name}`\n" for each in sorted(path.iterdir()))
    if path.suffix in IMAGES:
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".md" else f"# {title}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"
