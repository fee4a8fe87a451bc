"""A video's temporal patches are attended to apart: it goes through the tower in pieces, images of others between them.

So a long video takes no more memory of the tower's than a large image does.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from vision_server.encoder import Embedding
from vision_server.preprocess import PreparedImage

# About so many patches go through the tower at once: an image of 2,048 tokens.
PIECE_PATCHES = 8192


def pieces(prepared: PreparedImage, most: int = PIECE_PATCHES) -> list[PreparedImage]:
    """What is encoded one after the other: an image as it is, a video in pieces of some temporal patches each."""
    t, h, w = prepared.grid
    if prepared.video is None:
        return [prepared]
    groups = max(1, most // (h * w))
    cut = [prepared.patches[start * h * w : (start + groups) * h * w] for start in range(0, t, groups)]
    return [replace(prepared, patches=patches, grid=(len(patches) // (h * w), h, w)) for patches in cut]


def some(prepared: PreparedImage, places: Sequence[int]) -> PreparedImage:
    """A video of some of the temporal patches, ascending; patches are copied only where others lie between them."""
    _, h, w = prepared.grid
    first, last = places[0], places[-1]
    patches = prepared.patches[first * h * w : (last + 1) * h * w]
    if last - first + 1 != len(places):
        chosen = torch.tensor(places) - first
        patches = patches.view(last - first + 1, h * w, -1)[chosen].flatten(0, 1)
    return replace(prepared, patches=patches, grid=(len(places), h, w))


def cut(embedding: Embedding, num_groups: int) -> list[Embedding]:
    """The embedding of each of a video's temporal patches, sharing its memory."""
    merged = embedding.merged.chunk(num_groups)
    layers = [layer.chunk(num_groups) for layer in embedding.deepstack]
    return [Embedding(one, tuple(layer[place] for layer in layers)) for place, one in enumerate(merged)]


def join(embeddings: Sequence[Embedding]) -> Embedding:
    """The embedding of what was encoded in pieces."""
    if len(embeddings) == 1:
        return embeddings[0]
    layers = zip(*(embedding.deepstack for embedding in embeddings), strict=True)
    return Embedding(
        torch.cat([embedding.merged for embedding in embeddings]), tuple(torch.cat(layer) for layer in layers)
    )
