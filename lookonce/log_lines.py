"""The lines that a child process writes, as levels and texts. Pure."""

import re
from dataclasses import dataclass

from lookonce.kinds import LOG_LEVELS

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d (?P<level>[A-Z]+) \w+ (?P<text>.*)")
LEVELS = {**{level.upper(): level for level in LOG_LEVELS}, "CRITICAL": "error"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a child.

    Attributes:
        level: debug, info, warning or error.
        text: The line without its time, level and process.
    """

    level: str
    text: str

    def is_at_least(self, level: str) -> bool:
        """Whether it is to be shown to somebody who wants lines from this level."""
        return LOG_LEVELS.index(self.level) >= LOG_LEVELS.index(level)


def read_line(line: str, otherwise: str) -> LogLine:
    """A line of a structured log; any other, such as a traceback's, is of the level `otherwise`."""
    match = LINE.fullmatch(line)
    if match is None or match["level"] not in LEVELS:
        return LogLine(otherwise, line)
    return LogLine(LEVELS[match["level"]], match["text"])
