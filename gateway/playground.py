"""GET /: a page to try questions on an image with. It asks nothing of any other host."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

# The page is one file: its own style and script and nothing else, and it talks to this server only.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
async def playground() -> HTMLResponse:
    """The page."""
    page = files("gateway").joinpath("page/index.html").read_text(encoding="utf-8")
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})
