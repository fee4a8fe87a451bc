"""The two halves of a checkpoint, and which half a tensor belongs to."""

from enum import StrEnum

VISION_PREFIX = "model.visual."
LANGUAGE_PREFIXES = ("model.language_model.", "lm_head.")


class Half(StrEnum):
    """The vision tower, or everything else."""

    VISION = "vision"
    LANGUAGE = "language"


def half_of(name: str) -> Half | None:
    """The half of a tensor by its canonical name; None for a name that neither half knows."""
    if name.startswith(VISION_PREFIX):
        return Half.VISION
    if name.startswith(LANGUAGE_PREFIXES):
        return Half.LANGUAGE
    return None
