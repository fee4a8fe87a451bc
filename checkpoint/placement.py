"""Where the language half's tensors go: one device, or spread over devices, CPU and disk by accelerate."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory, offload_weight, save_offload_index
from torch import nn

from checkpoint.errors import LoadOptionError

DeviceMap = Mapping[str, str | int]
AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
DISK = "disk"


class Placement(Protocol):
    """Takes each tensor as it is read, and finishes the module when all are there."""

    def place(self, module: nn.Module, name: str, tensor: torch.Tensor) -> None:
        """Make `tensor` the module's parameter `name`, wherever it is to live."""

    def together(self, name: str, other: str) -> bool:
        """Whether two parameters live in the same memory, so that one tensor can serve for both."""

    def finish(self, module: nn.Module) -> None:
        """All tensors are placed and tied: bring buffers and hooks in order."""


def assign(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace the parameter `name` by `tensor`, which takes no gradient."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))


@dataclass(frozen=True, slots=True)
class OneDevice:
    """Everything on `device`."""

    device: torch.device

    def place(self, module: nn.Module, name: str, tensor: torch.Tensor) -> None:
        """Copy to the device."""
        assign(module, name, tensor.to(self.device))

    def together(self, name: str, other: str) -> bool:
        """Always."""
        return True

    def finish(self, module: nn.Module) -> None:
        """Buffers follow; their dtype stays, so inv_freq remains float32."""
        module.to(self.device)


@dataclass(slots=True)
class Spread:
    """By a device map; tensors of modules mapped to "disk" are written to `offload_folder` and read at each use."""

    device_map: dict[str, str | int]
    offload_folder: Path | None
    _offloaded: dict[str, Any] = field(default_factory=dict)

    def place(self, module: nn.Module, name: str, tensor: torch.Tensor) -> None:
        """Copy to the mapped device, or write to the offload folder and leave the parameter on meta."""
        target = self._target(name)
        if target == DISK:
            offload_weight(tensor, name, self.offload_folder, index=self._offloaded)
        else:
            assign(module, name, tensor.to(target))

    def together(self, name: str, other: str) -> bool:
        """On the same device; on disk each has a file of its own."""
        return self._target(name) == self._target(other) != DISK

    def finish(self, module: nn.Module) -> None:
        """Hook the modules so that inputs and offloaded weights travel to where they are used."""
        if self._offloaded:
            save_offload_index(self._offloaded, self.offload_folder)
        dispatch_model(
            module,
            device_map=self.device_map,
            offload_dir=self.offload_folder,
            skip_keys=module._skip_keys_device_placement,
            force_hooks=bool(self._offloaded),
        )

    def _target(self, name: str) -> str | int:
        prefix = name
        while prefix not in self.device_map:
            if not prefix:
                raise LoadOptionError(f"the device map has no place for {name}")
            prefix = prefix.rpartition(".")[0]
        return self.device_map[prefix]


def spread(module: nn.Module, device_map: str | DeviceMap, offload_folder: Path | None, dtype: torch.dtype) -> Spread:
    """Settle the device map for an empty `module` (on meta, tied) whose weights will be of `dtype`.

    Raises LoadOptionError for an unknown strategy, or where something goes to disk and no folder was given.
    """
    settled = _automatic(module, device_map, dtype) if isinstance(device_map, str) else dict(device_map)
    if DISK in settled.values():
        if offload_folder is None:
            raise LoadOptionError("some layers fit neither the devices nor the memory: an offload folder is needed")
        offload_folder.mkdir(parents=True, exist_ok=True)
    return Spread(settled, offload_folder)


def _automatic(module: nn.Module, strategy: str, dtype: torch.dtype) -> dict[str, str | int]:
    if strategy not in AUTOMATIC:
        raise LoadOptionError(f"device map {strategy!r} is not one of {', '.join(AUTOMATIC)}")
    module.tie_weights()  # type: ignore[operator]  # what is shared is counted once and kept together
    whole_layers = sorted(module._no_split_modules)  # type: ignore[arg-type]  # PreTrainedModel's set of class names
    memory = None
    if strategy != "sequential":
        memory = get_balanced_memory(
            module, no_split_module_classes=whole_layers, dtype=dtype, low_zero=strategy == "balanced_low_0"
        )
    settled: dict[str, str | int] = infer_auto_device_map(
        module, max_memory=memory, no_split_module_classes=whole_layers, dtype=dtype
    )
    return settled
