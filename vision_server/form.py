"""What every entry of one worker has in common."""

from dataclasses import dataclass

from cache.header import ITEM_BYTES


@dataclass(frozen=True, slots=True)
class EntryForm:
    """What every entry of this worker has in common."""

    fingerprint: str
    hidden_size: int
    num_deepstack: int
    merge_size: int
    dtype: str
    max_bytes: int
    # How values are stored: one of `cache.CODECS`.
    codec: str = "none"

    def value_bytes(self, grid: tuple[int, int, int]) -> int:
        """Bytes of an entry's tensors."""
        t, h, w = grid
        tokens = t * h * w // self.merge_size**2
        return tokens * self.hidden_size * ITEM_BYTES[self.dtype] * (1 + self.num_deepstack)
