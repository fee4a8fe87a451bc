"""The navigation as mkdocs.yml has it, with the pages that its patterns stand for."""

from collections.abc import Iterator, Sequence
from typing import Any

REST = "*"


def filled(nav: Sequence[Any], pages: Sequence[str]) -> list[Any]:
    """`nav` with `FOLDER/*` replaced by that folder's pages and `*` by all that are named nowhere."""
    expanded = [_with_folders(item, pages) for item in nav]
    named = set(_named(expanded))
    return [_with_rest(item, [page for page in pages if page not in named]) for item in expanded]


def _with_folders(item: Any, pages: Sequence[str]) -> Any:
    if isinstance(item, dict):
        return {title: _with_folders(below, pages) for title, below in item.items()}
    if isinstance(item, list):
        return [_with_folders(below, pages) for below in item]
    if item != REST and item.endswith("/*"):
        return [page for page in pages if page.startswith(item[:-1])]
    return item


def _named(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
        return
    for below in item.values() if isinstance(item, dict) else item:
        yield from _named(below)


def _with_rest(item: Any, rest: Sequence[str]) -> Any:
    if isinstance(item, dict):
        return {title: _with_rest(below, rest) for title, below in item.items()}
    if isinstance(item, list):
        return [each for below in item for each in (rest if below == REST else [_with_rest(below, rest)])]
    return item
