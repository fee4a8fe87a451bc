"""What mkdocs calls while it builds the site."""

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs.making import commands_page, http_page, rpc_page
from docs.making.navigation import filled
from docs.making.repository import ROOT, Repository

# By their place in the site: what is written from the code at every build.
PAGES = {
    "reference/http.md": http_page.markdown,
    "reference/commands.md": commands_page.markdown,
    "reference/grpc.md": rpc_page.markdown,
}
CODE_IN_CELL = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
CODE = re.compile(r"(<code>)([^<]{24,})(</code>)")
BREAKS = re.compile(r"(::|[_/,.](?=\w))")
# The page's own font and mark, which the site uses too.
ASSETS = {
    "assets/icon.svg": "gateway/page/icon.svg",
    "assets/inter.woff2": "gateway/page/inter.woff2",
    "assets/inter-license.txt": "gateway/page/inter-license.txt",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are written from the code, the repository's files that documents link to, and the assets."""
    for place, write in PAGES.items():
        files.append(File.generated(config, place, content=write()))
    for place, source in ASSETS.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    documents = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for place, content in Repository().linked_from(documents).items():
        inclusion = InclusionLevel.NOT_IN_NAV if place.endswith(".md") else InclusionLevel.UNDEFINED
        files.append(File.generated(config, place, content=content, inclusion=inclusion))
    own = sorted(
        file.src_uri for file in files.documentation_pages() if file.inclusion is not InclusionLevel.NOT_IN_NAV
    )
    config.nav = filled(config.nav or [], own)
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Lets long names in tables, such as those of tests, break where a word of theirs ends."""
    return CODE_IN_CELL.sub(lambda cell: CODE.sub(_breakable, cell[0]), html)


def _breakable(code: re.Match[str]) -> str:
    return code[1] + BREAKS.sub(r"\1<wbr>", code[2]) + code[3]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links to the repository's files into links to the site's copies."""
    return Repository().relinked(markdown, page.file.src_uri)
