"""Structured logs: one line an event, `key=value` pairs after the message, to standard error."""

import logging
import sys

from rpc import request_ids, traces

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class PairsFormatter(logging.Formatter):
    """Formats the fields given as `extra=`, and the ids of the request that is worked on, behind the message."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record, and its traceback below it where there is one."""
        line, separator, rest = super().format(record).partition("\n")
        fields = {key: value for key, value in vars(record).items() if key not in STANDARD}
        if request_id := request_ids.current():
            fields["request_id"] = request_id
        if ids := traces.current_ids():
            fields["trace_id"], fields["span_id"] = ids
        pairs = [f"{key}={value!r}" for key, value in fields.items()]
        return " ".join([line, *pairs]) + separator + rest


def configure(process: str, level: str = "info") -> None:
    """Sends every log record of this process to standard error.

    Args:
        process: The word that names this process in each line: vision, language, gateway.
        level: debug, info, warning or error.

    Raises:
        ValueError: an unknown level, by name.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}: use debug, info, warning or error")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PairsFormatter(process))
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
