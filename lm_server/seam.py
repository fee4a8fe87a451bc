"""What the answering side needs of an engine. The built-in one (`engine.py`) and vLLM (`vllm_engine.py`) keep to it.

EngineUnusable    an engine that was asked for cannot be started as it was asked for
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from lm_server.runner import ImageEmbedding
from lm_server.tickets import Listener, Ticket, Work
from rpc.errors import NO_ROOM, Overloaded
from rpc.heartbeat import Pulse
from rpc.places import Places


class EngineUnusable(Exception):
    """The engine that was asked for cannot be started as it was asked for."""


class AnsweringEngine(Protocol):
    """Turns questions into events, each told to the question's listener from a thread of the engine's own.

    A question ends with one `Finished` or `Failed`. Before that come `Delta`s, and `LackingImages` where an embedding
    is wanted that the work did not bring. Everything here may be called from any thread.
    """

    @property
    def is_broken(self) -> bool:
        """It can answer nothing any more."""

    @property
    def pulse(self) -> Pulse:
        """Since when it has been at one piece of its work."""

    def start(self) -> None:
        """Begins to answer. Raises `EngineUnusable`."""

    def check(self, work: Work) -> None:
        """Raises `InvalidArgument` for a question that could never be answered, even alone."""

    def check_room(self, num_questions: int, tenant: str = "") -> None:
        """Raises `Overloaded` where so many more questions of this tenant would not be taken now."""

    def submit(self, works: Sequence[Work], listeners: Sequence[Listener]) -> list[Ticket]:
        """Takes questions of one tenant in, all or none. Raises as `check` and `check_room` do."""

    def supply(self, ticket: Ticket, embeddings: Mapping[str, ImageEmbedding]) -> None:
        """Gives a question the embeddings it lacked."""

    def cancel(self, ticket: Ticket) -> None:
        """Ends a question without an answer. Harmless when it has ended."""

    def forget(self, image_id: str) -> None:
        """Lets no later question reuse a prefix that shows the image."""

    def stop(self) -> None:
        """Fails what is left and ends the engine."""

    @property
    def num_running(self) -> int:
        """Questions in the batch."""

    @property
    def num_waiting(self) -> int:
        """Questions taken in and not in the batch."""

    @property
    def kv_bytes_used(self) -> int:
        """Key/value memory reserved now."""

    @property
    def kv_bytes_budget(self) -> int:
        """Key/value memory that may be reserved."""


def check_places(places: Places, num_questions: int, tenant: str) -> None:
    """Raises `Overloaded`, as `check_room` does, where there are not so many places for this tenant."""
    if not places.has_room(tenant, num_questions):
        raise Overloaded(f"{places.num_taken} questions are being answered already", NO_ROOM, retry_after_s=1.0)
