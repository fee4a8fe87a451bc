"""Patches → embeddings: the tower itself, called by one thread only."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from checkpoint import LoadedVision
from kernels import ALONE, Alone, Turns, pack_linears, pack_patch_embedding, pack_tower_blocks
from vision_server.preprocess import PreparedImage

# Within a block, what is called before each piece of it: for some of its rows, or for all.
_PIECES = ("norm1", "norm2")


@dataclass(frozen=True, slots=True)
class Embedding:
    """The tower's output for one image, on the CPU, in the tower's dtype."""

    # Merged patch embeddings, [tokens, hidden].
    merged: torch.Tensor
    # One [tokens, hidden] for each tapped layer.
    deepstack: tuple[torch.Tensor, ...]


class VisionTower:
    """A loaded vision half, which it packs where that can be done. Owned by one thread.

    `threads` is what torch may use in the thread that calls `encode`; None leaves it as it is there. `turns` are taken
    to encode, and passed on between pieces of the tower's blocks; each uses as many threads as there are cores then.
    """

    def __init__(self, loaded: LoadedVision, threads: int | None = None, turns: Turns | Alone = ALONE) -> None:
        self._threads = threads
        self._turns = turns
        self._model = loaded.model
        self._dtype = loaded.dtype
        self._merge_size = loaded.description.spatial_merge_size
        self._device = next(loaded.model.parameters()).device
        pack_patch_embedding(loaded.model)
        # Called before the model, which holds what it is given to its end: patches are larger than their rows.
        self._embed = loaded.model.get_submodule("patch_embed")
        loaded.model.patch_embed = nn.Identity()
        pack_tower_blocks(loaded.model)
        pack_linears(loaded.model)
        for block in getattr(loaded.model, "blocks", ()):
            for name in _PIECES:
                block.get_submodule(name).register_forward_pre_hook(self._pass_on)

    @torch.inference_mode()
    def encode(self, images: Sequence[PreparedImage], *, give_up: bool = False) -> list[Embedding]:
        """The embeddings of the images, in order, from one forward. With `give_up` their patches are gone after it."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)
            self._threads = None
        grids = torch.tensor([image.grid for image in images], dtype=torch.int64, device=self._device)
        with self._turns.taken():
            self._use_cores()
            output = self._model(self._rows(images, give_up=give_up), grid_thw=grids, return_dict=True)
        counts = [t * h * w // self._merge_size**2 for t, h, w in (image.grid for image in images)]
        layers = getattr(output, "deepstack_features", None) or []
        merged, *deepstack = (_split(tensor, counts) for tensor in (output.pooler_output, *layers))
        return [Embedding(one, tuple(layer[place] for layer in deepstack)) for place, one in enumerate(merged)]

    def _pass_on(self, *_: object) -> None:
        self._turns.pass_on()
        self._use_cores()

    def _use_cores(self) -> None:
        num_cores = self._turns.num_cores
        if num_cores is not None and num_cores != torch.get_num_threads():
            torch.set_num_threads(num_cores)

    def _rows(self, images: Sequence[PreparedImage], *, give_up: bool) -> torch.Tensor:
        """The embedded patches [patches, width] of all images; with `give_up` nobody holds the patches any more."""
        # One image's are not copied.
        patches = images[0].patches if len(images) == 1 else torch.cat([image.patches for image in images])
        if give_up:
            for image in images:
                image.give_up()
        rows: torch.Tensor = self._embed(patches.to(self._device, self._dtype))
        return rows


def _split(tensor: torch.Tensor, counts: list[int]) -> tuple[torch.Tensor, ...]:
    return torch.split(tensor.to("cpu"), counts)
