"""What ends a bulk run, or keeps it from beginning. An image that fails does neither: its rows have the error.

LookonceError
└── BulkError
    ├── NoSuchSource       nothing to ask about: no such file, folder or match, or not a data set
    ├── UnusableOutput     results cannot be written there
    ├── OtherRun           the journal beside the output is of other questions, or is being written right now
    ├── DamagedJournal     the journal is not one of ours
    ├── MissingExtra       pyarrow is not installed
    └── RunEnded           what every further image would fail of as well
"""

from lookonce.errors import LookonceError


class BulkError(LookonceError):
    """Root of this package's errors."""


class NoSuchSource(BulkError):
    """There is nothing to ask about."""


class UnusableOutput(BulkError):
    """Results cannot be written there."""


class OtherRun(BulkError):
    """The journal beside the output is of other questions, or another run writes it."""


class DamagedJournal(BulkError):
    """A journal that cannot be read."""


class MissingExtra(BulkError):
    """An optional package is not installed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs pyarrow: pip install 'lookonce[bulk]'")


class RunEnded(BulkError):
    """Something that every further image would fail of too: no server, or a token that is not taken."""
