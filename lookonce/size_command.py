"""`lookonce size`: how big Redis and a language worker's memory should be for a model and its images."""

import re
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lookonce.amounts import bytes_text, seconds_text
from lookonce.kinds import read_size
from lookonce.models import model_dir
from lookonce.sizing import ModelFacts, Sizes, Traffic, sizes, transfer_s

PIXELS = re.compile(r"(\d{1,5})x(\d{1,5})")
LINKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 1e10, "25 Gbit/s": 2.5e10}


def add_command(app: typer.Typer) -> None:
    """Gives the command line `size`."""
    app.command("size")(size)


def size(
    model: Annotated[str, typer.Option(metavar="DIR|demo", help="A checkpoint; only its JSON files are read.")],
    images: Annotated[int, typer.Option(min=1, metavar="N", help="Images whose ids live at the same time.")],
    pixels: Annotated[str, typer.Option(metavar="WxH", help="Size of a usual image.")] = "1024x1024",
    upload_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Length of its file.")] = "300kB",
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="Of both halves: bfloat16, float16, float32.")
    ] = "bfloat16",
    redis_memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of one Redis server.")] = "64GB",
    replicas: Annotated[int, typer.Option(min=0, metavar="N", help="Copies of each Redis server.")] = 0,
    questions: Annotated[int, typer.Option(min=1, metavar="N", help="Asked at once about one image.")] = 8,
    max_image_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As the vision worker has it.")
    ] = None,
) -> None:
    """How big should Redis be? Memory of entries, prefixes and links for a model and its images."""
    width, height = _pixels(pixels)
    facts, num_tokens = _read(model_dir(model), dtype, width, height, max_image_tokens)
    traffic = Traffic(images, num_tokens, read_size(upload_bytes), read_size(redis_memory), replicas, questions)
    Console(highlight=False).print(_table(traffic, sizes(facts, traffic)))


def _pixels(text: str) -> tuple[int, int]:
    match = PIXELS.fullmatch(text)
    if match is None or not all(int(side) for side in match.groups()):
        raise typer.BadParameter(f"{text!r} is not a size in pixels: write 1024x768", param_hint="--pixels")
    return int(match[1]), int(match[2])


def _read(directory: str, dtype: str, width: int, height: int, max_tokens: int | None) -> tuple[ModelFacts, int]:
    """The checkpoint's facts, and the tokens of an image of this size."""
    # Here, for they import torch.
    from pathlib import Path

    from PIL import Image

    from cache.header import ITEM_BYTES
    from checkpoint.description import describe
    from rpc.errors import InvalidArgument
    from vision_server.preprocess import ImagePreprocessor

    if dtype not in ITEM_BYTES:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(ITEM_BYTES)}", param_hint="--dtype")
    description = describe(Path(directory))
    text = description.config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    item = ITEM_BYTES[dtype]
    facts = ModelFacts(
        description.hidden_size,
        description.num_deepstack,
        item,
        text.num_hidden_layers,
        text.num_key_value_heads,
        head_dim,
        item,
    )
    try:
        prepared = ImagePreprocessor(Path(directory), max_tokens).prepare(Image.new("RGB", (width, height)))
    except InvalidArgument as exc:
        raise typer.BadParameter(exc.message, param_hint="--pixels") from exc
    t, h, w = prepared.grid
    return facts, t * h * w // description.spatial_merge_size**2


def _table(traffic: Traffic, found: Sizes) -> Table:
    table = Table("", "", show_header=False)
    table.add_row("tokens of an image", f"{traffic.num_tokens:,}")
    table.add_row("its entry", bytes_text(found.entry_bytes))
    table.add_row("in Redis, with its file and Redis's own", bytes_text(found.stored_bytes))
    table.add_row(f"all {traffic.num_images:,} images", bytes_text(found.total_bytes))
    copies = f", {traffic.num_replicas} copies of each" if traffic.num_replicas else ""
    table.add_row(f"Redis servers of {bytes_text(traffic.node_bytes)}{copies}", f"{found.num_nodes:,}")
    for name, bits in LINKS.items():
        table.add_row(f"an entry over {name}", seconds_text(transfer_s(found.entry_bytes, bits)))
    table.add_section()
    table.add_row("keys and values of an image's prefix (--kv-bytes)", bytes_text(found.prefix_bytes))
    table.add_row(f"… of {traffic.questions} questions beside it", bytes_text(found.tail_bytes))
    return table
