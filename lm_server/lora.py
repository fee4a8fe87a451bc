"""LoRA while a step runs: what an adapter adds to the products of its rows. Source: arXiv 2106.09685.

Rows of different adapters, and of none, share a step and its products with the model's own weights; what an adapter
adds, B·A·x, is computed for its own rows alone. A step without any adapter does nothing here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lm_server.adapters import AdapterFile, Shape
from lm_server.steps import Run


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear layer of the whole model, as it stands in a product here.

    Attributes:
        name: Its name in the whole model.
        shape: Of its weight.
        first_column: Where its outputs begin in the product's.
        order: [O] the order of its outputs there; None: its own.
    """

    name: str
    shape: Shape
    first_column: int = 0
    order: torch.Tensor | None = None

    def columns(self, product: torch.Tensor) -> torch.Tensor:
        """This layer's outputs in the product [R, …], as a view."""
        return product[:, self.first_column : self.first_column + self.shape.out_features]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a layer's outputs: rows [R, I] · down [r, I]ᵀ · up [O, r]ᵀ, the scale included."""

    down: torch.Tensor
    up: torch.Tensor

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, I] → [R, O]."""
        return F.linear(F.linear(rows, self.down), self.up)


@dataclass(slots=True, eq=False)
class Adapter:
    """An adapter in memory.

    Attributes:
        identity: Differs between any two loadings; keys of computed prefixes are made with it.
        rank: The largest of its ranks.
        weights: By the linear layer's name.
        is_gone: It is not served any more; only what runs goes on with it.
    """

    identity: str
    rank: int
    weights: Mapping[str, LowRank]
    is_gone: bool = False

    @property
    def num_bytes(self) -> int:
        """Of the weights."""
        return sum(low.down.nbytes + low.up.nbytes for low in self.weights.values())


def make_adapter(
    file: AdapterFile, identity: str, linears: Iterable[Linear], dtype: torch.dtype, device: torch.device | str
) -> Adapter:
    """The adapter as the products want it. Raises `OverflowError` where values are beyond the dtype's range."""
    weights = {}
    for linear in linears:
        if linear.name in file.matrices:
            found = file.matrices[linear.name]
            up = found.b.float() * found.scale
            up = up if linear.order is None else up[linear.order.to(up.device)]
            weights[linear.name] = LowRank(_fitting(found.a, dtype, device), _fitting(up, dtype, device))
    return Adapter(identity, file.rank, weights)


def _fitting(values: torch.Tensor, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    fitting = values.to(device=device, dtype=dtype).contiguous()
    if not torch.isfinite(fitting).all():
        raise OverflowError
    return fitting


@dataclass(frozen=True, slots=True)
class _Group:
    """An adapter, and its rows [N] of those at hand; None: all of them."""

    adapter: Adapter
    rows: torch.Tensor | None

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.rows is None else rows[self.rows]


class StepAdapters:
    """Which rows of the step at hand have which adapter, and what that adds. Owned by the engine's thread."""

    def __init__(self) -> None:
        self._adapters: tuple[Adapter, ...] = ()
        # [R] by row, -1 where it has none.
        self._owners = torch.empty(0, dtype=torch.long)
        self._groups: tuple[_Group, ...] = ()

    def begin(self, runs: Sequence[Run], device: torch.device | str) -> None:
        """Takes the rows of these runs, one after the other, for those at hand."""
        self._adapters = _adapters(runs)
        self._groups = ()
        if self._adapters:
            places = {id(adapter): place for place, adapter in enumerate(self._adapters)}
            owners = [places.get(id(run.sequence.adapter), -1) for run in runs]
            counts = torch.tensor([run.num_rows for run in runs])
            self._regroup(torch.tensor(owners).repeat_interleave(counts).to(device))

    def keep(self, rows: Sequence[slice]) -> None:
        """Of the rows at hand only these remain."""
        if self._adapters:
            self._regroup(torch.cat([self._owners[each] for each in rows]) if rows else self._owners[:0])

    def _regroup(self, owners: torch.Tensor) -> None:
        self._owners = owners
        found: list[_Group] = []
        for place, adapter in enumerate(self._adapters):
            rows = (owners == place).nonzero().flatten()
            if len(rows):
                found.append(_Group(adapter, None if len(rows) == len(owners) else rows))
        self._groups = tuple(found)

    def add(
        self, product: torch.Tensor, rows: torch.Tensor, linears: Sequence[Linear], factor: torch.Tensor | None = None
    ) -> None:
        """Adds what the adapters make of the inputs `rows` [R, I] to a product [R, …] of these layers, in place.

        `factor` [R, …] is what the product was multiplied by.
        """
        for group in self._groups:
            changed = [linear for linear in linears if linear.name in group.adapter.weights]
            own = group.of(rows) if changed else rows
            for linear in changed:
                added = group.adapter.weights[linear.name](own)
                if factor is not None:
                    added *= group.of(factor)
                columns = linear.columns(product)
                if group.rows is None:
                    columns.add_(added)
                else:
                    columns.index_add_(0, group.rows, added)

    def added(self, rows: torch.Tensor, linear: Linear) -> torch.Tensor | None:
        """What is to be added to the layer's outputs, [R, O]; None where no adapter of these rows has anything."""
        if not any(linear.name in group.adapter.weights for group in self._groups):
            return None
        product = rows.new_zeros(len(rows), linear.shape.out_features)
        self.add(product, rows, (linear,))
        return product


def _adapters(runs: Sequence[Run]) -> tuple[Adapter, ...]:
    found: dict[int, Adapter] = {}
    for run in runs:
        adapter = run.sequence.adapter
        if adapter is None:
            continue
        if not isinstance(adapter, Adapter):
            raise TypeError("a sequence's adapter is an Adapter")
        found[id(adapter)] = adapter
    return tuple(found.values())


class AdaptedLinear(nn.Module):
    """A linear layer inside transformers' own code, with what the step's adapters add."""

    def __init__(self, inner: nn.Linear, linear: Linear, adapters: StepAdapters) -> None:
        super().__init__()
        self.inner = inner
        self.linear = linear
        self.adapters = adapters

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[1, R, I] → [1, R, O]."""
        product: torch.Tensor = self.inner(rows)
        self.adapters.add(product.flatten(0, -2), rows.flatten(0, -2), (self.linear,))
        return product


def adapt_linears(layer: Any, prefix: str, adapters: StepAdapters) -> tuple[Linear, ...]:
    """Has every linear layer below a module add what the step's adapters do; what they are. May be repeated.

    A module that accelerate has hooks on is left as it is, and nothing of it can be adapted.
    """
    if any(hasattr(module, "_hf_hook") for module in layer.modules()):
        return ()
    for parent_name, parent in list(layer.named_modules()):
        if isinstance(parent, AdaptedLinear):
            parent.adapters = adapters
            continue
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                full_name = ".".join(filter(None, (prefix, parent_name, name)))
                linear = Linear(full_name, Shape(child.out_features, child.in_features))
                setattr(parent, name, AdaptedLinear(child, linear, adapters))
    return tuple(module.linear for module in layer.modules() if isinstance(module, AdaptedLinear))
