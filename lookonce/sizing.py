"""How much memory images take: in Redis, and in a language worker. Pure arithmetic."""

import math
from dataclasses import dataclass

# A Redis value's own object, its key's place in two tables (values and times to live) and their share of growth;
# measured on Redis 7.0: see tests/lookonce/test_sizing.py.
KEY_OVERHEAD_BYTES = 200
# `lookonce:{<64 hex>}:<64 hex>:<tenant>`, and an entry's header of JSON.
KEY_BYTES = 160
HEADER_BYTES = 1024
# Of a server's memory: the rest is for connections' buffers, replication and fragmentation.
USABLE_PART = 0.8
BITS = 8


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the sizes depend on in a checkpoint.

    Attributes:
        hidden_size: Width of an image token's embedding.
        num_deepstack: Further tensors of the same shape in an entry.
        entry_item_bytes: Of one value of an entry.
        num_layers: Of the language half.
        num_kv_heads: The same.
        head_dim: The same.
        kv_item_bytes: Of one value of keys and values.
    """

    hidden_size: int
    num_deepstack: int
    entry_item_bytes: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    kv_item_bytes: int

    def entry_bytes(self, num_tokens: int) -> int:
        """An entry as it is stored."""
        return HEADER_BYTES + num_tokens * self.hidden_size * (1 + self.num_deepstack) * self.entry_item_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.kv_item_bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is to be kept and asked.

    Attributes:
        num_images: Images whose ids live at the same time.
        num_tokens: Image tokens of one of them.
        upload_bytes: Length of its uploaded file.
        node_bytes: Memory of one Redis server.
        num_replicas: Copies of each beside the primary.
        questions: Asked at once about one image.
        question_tokens: Of a question and its answer together.
    """

    num_images: int
    num_tokens: int
    upload_bytes: int
    node_bytes: int
    num_replicas: int = 0
    questions: int = 8
    question_tokens: int = 128


@dataclass(frozen=True, slots=True)
class Sizes:
    """What it comes to, in bytes where nothing else is said.

    Attributes:
        entry_bytes: Of one image's entry.
        stored_bytes: Of one image in Redis: entry, uploaded file, and what Redis adds.
        total_bytes: Of all images in Redis, once.
        num_nodes: Redis servers, replicas included.
        prefix_bytes: Keys and values of one image's prefix in a language worker.
        tail_bytes: Keys and values of its questions beside it.
    """

    entry_bytes: int
    stored_bytes: int
    total_bytes: int
    num_nodes: int
    prefix_bytes: int
    tail_bytes: int


def sizes(model: ModelFacts, traffic: Traffic) -> Sizes:
    """The sizes of a traffic."""
    entry = model.entry_bytes(traffic.num_tokens)
    stored = redis_bytes(entry) + redis_bytes(traffic.upload_bytes)
    total = stored * traffic.num_images
    primaries = max(1, math.ceil(total / (USABLE_PART * traffic.node_bytes)))
    return Sizes(
        entry_bytes=entry,
        stored_bytes=stored,
        total_bytes=total,
        num_nodes=primaries * (1 + traffic.num_replicas),
        prefix_bytes=traffic.num_tokens * model.kv_bytes_per_token,
        tail_bytes=traffic.questions * traffic.question_tokens * model.kv_bytes_per_token,
    )


def redis_bytes(value_bytes: int) -> int:
    """What one value takes in a Redis server, key and time to live included."""
    return allocated_bytes(value_bytes + 10) + allocated_bytes(KEY_BYTES) + KEY_OVERHEAD_BYTES


def allocated_bytes(num_bytes: int) -> int:
    """What jemalloc takes for so many: its size classes are four to each doubling.

    Source: jemalloc(3), "size classes".
    """
    if num_bytes <= 128:
        return max(16, math.ceil(num_bytes / 16) * 16)
    spacing: int = 1 << ((num_bytes - 1).bit_length() - 3)
    return math.ceil(num_bytes / spacing) * spacing


def transfer_s(num_bytes: int, bits_per_s: float) -> float:
    """Seconds on a link that carries nothing else."""
    return num_bytes * BITS / bits_per_s
