"""What names a model on a hub: `org/name`, or `org/name@revision`. Pure."""

import re
from dataclasses import dataclass

MAIN = "main"
REFERENCE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95})(?:@(?P<revision>[A-Za-z0-9][\w.\-/]{0,127}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository and a branch, tag or commit of it."""

    repo: str
    revision: str = MAIN

    def __str__(self) -> str:
        return self.repo if self.revision == MAIN else f"{self.repo}@{self.revision}"


def parse(text: str) -> HubModel | None:
    """The model that a text names; None where it is not of this form."""
    match = REFERENCE.fullmatch(text)
    if match is None or ".." in text or "--" in match["repo"]:
        return None
    return HubModel(match["repo"], match["revision"] or MAIN)
