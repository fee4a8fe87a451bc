"""What mkdocs calls while it builds the site."""

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


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links to the repository's files into links to the site's copies."""
    return Repository().relinked(markdown, page.file.src_uri)
