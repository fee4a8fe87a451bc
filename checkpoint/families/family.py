"""What the rest of the package needs to know about a family, as one value."""

import re
from dataclasses import dataclass
from enum import StrEnum


class VideoLayout(StrEnum):
    """How a video stands in a prompt, and how it is scaled down."""

    # One run of tokens, one step of time a temporal patch; every frame has the checkpoint's pixel bounds.
    COUNTED = "counted"
    # As COUNTED, time counted by the video's clock: vision_config's tokens_per_second.
    CLOCKED = "clocked"
    # A block for every temporal patch, its time before it as text; the pixel bounds are those of all frames together.
    TOLD = "told"


@dataclass(frozen=True, slots=True)
class Family:
    """How one model_type names its tensors, and which of transformers' classes are its whole model and its tower."""

    model_type: str
    modeling_module: str  # where the classes live
    config_module: str
    config_class: str
    whole_class: str
    vision_class: str
    renames: tuple[tuple[re.Pattern[str], str], ...]  # disk name → canonical name; the first that matches is applied
    ignored: tuple[re.Pattern[str], ...]  # disk names that old versions wrote and nothing reads
    fused_experts: (
        re.Pattern[str] | None
    )  # canonical names stored either as the module has them or with axes 1, 2 swapped
    video: VideoLayout

    def canonical_name(self, name: str) -> str:
        """The name inside the whole model of a tensor that is called `name` on disk, wrappers already taken off."""
        for pattern, replacement in self.renames:
            renamed, count = pattern.subn(replacement, name, count=1)
            if count:
                return renamed
        return name

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this disk name is left over from an older version and not part of the model."""
        return any(pattern.search(name) for pattern in self.ignored)

    def may_be_transposed(self, canonical_name: str) -> bool:
        """Whether the tensor may be stored with its last two axes swapped."""
        return self.fused_experts is not None and self.fused_experts.search(canonical_name) is not None


# Rotary frequencies were once saved with every layer; they are computed from the config.
ROTARY_LEFTOVERS = (re.compile(r"\.rotary_emb\.inv_freq$"), re.compile(r"\.rotary_pos_emb\.inv_freq$"))
