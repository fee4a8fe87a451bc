"""Which adapters are served: names, bounds, and directories that may be read."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm_server.adapter_config import FILE
from lm_server.adapter_registry import AdapterLimits, AdapterRegistry
from lm_server.adapters import WEIGHTS
from rpc.errors import InvalidArgument, NotFound, PermissionDenied
from tests.lm_server.tuning import LIMITS, registry, save_adapter
from tests.lm_server.workshop import Bench, Workshop


@pytest.fixture(scope="module")
def saved(one_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter below a directory that may be read."""
    return save_adapter(one_workshop.oracle, tmp_path_factory.mktemp("allowed") / "it")


@pytest.fixture
def bench(one_workshop: Workshop) -> Iterator[Bench]:
    """An engine whose model the adapters are for."""
    with one_workshop.engine() as made:
        yield made


Make = Callable[..., AdapterRegistry]


@pytest.fixture
def make(bench: Bench, saved: Path) -> Make:
    """A registry with the limits that a test asks for."""
    limits = replace(LIMITS, directories=(saved.parent,))
    return lambda **changes: registry(bench, replace(limits, **changes))


async def test_adapters_come_and_go(make: Make, saved: Path) -> None:
    """A loaded adapter is found by its name and told of with its size; unloaded, there is none of that name."""
    made = make()
    served = await made.load("org/it:v1", str(saved))
    assert made.find("org/it:v1") is served.adapter
    assert made.find("") is None
    [told] = [each.message() for each in made.served]
    assert (told.name, told.path, told.rank) == ("org/it:v1", str(saved), 4)
    # Float32 both in the file and in memory, but for the file's header.
    assert 0.5 * (saved / WEIGHTS).stat().st_size < told.bytes < (saved / WEIGHTS).stat().st_size
    made.unload("org/it:v1")
    assert made.served == ()
    for call in (made.find, made.unload):
        with pytest.raises(NotFound) as raised:
            call("org/it:v1")
        assert raised.value.reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("name", ["", "a b", "ä", "-a", "a" * 129, "base", "a\n"])
async def test_names_are_checked(make: Make, saved: Path, name: str) -> None:
    """A name that is empty, odd, too long or the model's own is refused."""
    with pytest.raises(InvalidArgument, match="lora_name"):
        await make().load(name, str(saved))


async def test_only_allowed_directories_are_read(make: Make, saved: Path, tmp_path: Path) -> None:
    """Paths elsewhere, up and out, relative, through links, or that are none, are refused alike."""
    inside = saved.parent / "links"
    inside.mkdir(exist_ok=True)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    for file in [saved / FILE, saved / WEIGHTS]:
        (outside / file.name).write_bytes(file.read_bytes())
        (inside / file.name).unlink(missing_ok=True)
        (inside / file.name).symlink_to(outside / file.name)
    link = saved.parent / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    made = make()
    paths = (
        outside,
        link,
        inside,
        saved / ".." / ".." / tmp_path.name / "elsewhere",
        "it",
        saved.parent / "none",
        "\0",
        "/" + "a" * 5000,
        "",
    )
    for path in paths:
        with pytest.raises(InvalidArgument, match="lora_path: there is no adapter, or this worker may not read it"):
            await made.load("a", str(path))
    assert made.served == ()
    through = saved.parent / "same"
    through.unlink(missing_ok=True)
    through.symlink_to(saved)
    await made.load("a", str(through))


async def test_without_directories_none_is_loaded_later(make: Make, saved: Path) -> None:
    """A worker that was not told of directories has the adapters that it was started with, wherever they lie."""
    made = make(directories=())
    made.load_first("first", str(saved))
    with pytest.raises(PermissionDenied, match="--lora-dirs"):
        await made.load("a", str(saved))
    assert [each.name for each in made.served] == ["first"]


async def test_count_and_bytes_are_bounded_and_a_name_can_be_replaced(make: Make, saved: Path) -> None:
    """One more than may be, or more bytes than may be, is refused; loading a name anew takes its own place."""
    made = make(max_adapters=2)
    old = await made.load("a", str(saved))
    await made.load("b", str(saved))
    with pytest.raises(InvalidArgument, match="2 adapters are served") as raised:
        await made.load("c", str(saved))
    assert raised.value.reason == "ADAPTERS_FULL"
    new = await made.load("a", str(saved))
    assert (old.adapter.is_gone, new.adapter.is_gone) == (True, False)
    assert old.adapter.identity != new.adapter.identity
    size = old.adapter.num_bytes
    small = make(max_bytes=2 * size)
    await small.load("a", str(saved))
    with pytest.raises(InvalidArgument, match="bytes"):
        await small.load("b", str(saved))
    assert [each.name for each in small.served] == ["a"]


async def test_loads_at_the_same_moment_keep_the_bounds(make: Make, saved: Path) -> None:
    """Of many that come at once no more are served than may be."""
    made = make(max_adapters=2)
    loads = [made.load(f"a{number}", str(saved)) for number in range(5)]
    outcomes = await asyncio.gather(*loads, return_exceptions=True)
    assert sum(isinstance(outcome, InvalidArgument) for outcome in outcomes) == 3
    assert len(made.served) == 2


async def test_a_bad_adapter_leaves_the_good_one(make: Make, saved: Path) -> None:
    """What cannot be read does not take the place of what is served under its name."""
    made = make()
    served = await made.load("a", str(saved))
    (saved.parent / "empty").mkdir(exist_ok=True)
    with pytest.raises(InvalidArgument, match=r"adapter_config\.json"):
        await made.load("a", str(saved.parent / "empty"))
    assert made.find("a") is served.adapter


def test_values_beyond_the_dtype_are_refused(bench: Bench, saved: Path) -> None:
    """Values that are infinite in the model's dtype are refused, where the file's own are finite."""
    made = AdapterRegistry(bench.runner.linears, torch.float16, "cpu", LIMITS)
    directory = saved.parent / "large"
    directory.mkdir(exist_ok=True)
    tensors = load_file(saved / WEIGHTS)
    save_file({name: tensor * 1e6 for name, tensor in tensors.items()}, directory / WEIGHTS)
    (directory / FILE).write_bytes((saved / FILE).read_bytes())
    with pytest.raises(InvalidArgument, match="float16"):
        made.load_first("a", str(directory))


def test_a_spread_model_takes_none(saved: Path) -> None:
    """Where accelerate placed the layers no adapter is taken, rather than one applied in part."""
    with pytest.raises(InvalidArgument, match="device map"):
        AdapterRegistry((), torch.float32, "cpu", AdapterLimits(1, 1 << 20)).load_first("a", str(saved))
