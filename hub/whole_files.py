"""Whether a whole file is the one that the hub has: its size, and its sha256 where the hub tells one."""

import hashlib
from pathlib import Path

from hub.access import FileFacts
from hub.errors import DownloadBroken


def check_whole(path: Path, facts: FileFacts) -> None:
    """Raises DownloadBroken for a file that is another; it is removed, so that it is fetched again the next time."""
    problem = _problem(path, facts)
    if problem is not None:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise DownloadBroken(f"{path.name} {problem}; it was removed: start again to fetch it anew")


def _problem(path: Path, facts: FileFacts) -> str | None:
    size = path.stat().st_size
    if size != facts.size:
        return f"has {size} bytes, and the hub says {facts.size}"
    if facts.sha256 is None:
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == facts.sha256 else f"has the sha256 {digest}, and the hub says {facts.sha256}"
