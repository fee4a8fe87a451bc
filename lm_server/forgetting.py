"""What must not be found again: prefixes and drafts of a deleted image, or of an adapter given up."""

from collections.abc import Collection

from lm_server.drafts import DraftBook
from lm_server.segments import KvLedger
from lm_server.sequence import Sequence


class Forgetting:
    """Forgets in the ledger, the tiers and the drafts, also what sequences that go on leave behind later.

    `sequences` are all that the engine has. Owned by its thread.
    """

    def __init__(self, ledger: KvLedger, drafts: DraftBook | None, sequences: Collection[Sequence]) -> None:
        self._ledger = ledger
        self._drafts = drafts
        self._sequences = sequences

    def image(self, image_id: str) -> None:
        """Lets no later question reuse what shows the image."""
        self._ledger.forget(image_id)
        if self._drafts is not None:
            self._drafts.forget(image_id)
        for sequence in self._sequences:
            if any(span.image.image_id == image_id for span in sequence.prompt.images):
                # Nor may what is being answered, or will be, be kept when it is done.
                sequence.forgotten_images |= {image_id}
                sequence.drafter = None

    def adapter(self, identity: str) -> None:
        """Keeps nothing of what the adapter computed; no later question could use it."""
        self._ledger.forget_adapter(identity)
        if self._drafts is not None:
            self._drafts.forget_adapter(identity)

    def ended(self, sequence: Sequence) -> None:
        """Keeps nothing of what was deleted, or whose adapter was given up, while a sequence was answered."""
        for image_id in sequence.forgotten_images:
            self._ledger.forget(image_id)
        if sequence.adapter is not None and sequence.adapter.is_gone:
            self.adapter(sequence.adapter.identity)
