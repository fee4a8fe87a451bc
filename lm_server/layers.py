"""The decoder layers that a step goes through: lean ones of our own, or transformers' where a layer is another.

Both work on flat rows [R, H], all sequences' rows of a step one after the other, and come in two halves, so that the
last layer's feed-forward part can be left out for rows that nobody looks at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from kernels import make_linear
from kernels.linear import SILU
from kernels.native import can_norm, rms_norm
from kernels.rotary import neighbours, rotate_in_place
from lm_server.adapters import LANGUAGE, Shape
from lm_server.attention import StepAttention
from lm_server.lora import Linear, StepAdapters, adapt_linears


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What every layer of a step is given beside its rows.

    Attributes:
        attention: How the rows attend.
        rotation: Complex [R, 1, D / 2], for lean layers.
        cos_sin: [1, R, D] each, for transformers' layers.
    """

    attention: StepAttention
    rotation: torch.Tensor
    cos_sin: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Those of a step's rows that are looked at behind the last layer.

    Attributes:
        rows: Slices of the step's rows.
        attention: How these rows attend.
    """

    rows: Sequence[slice]
    attention: StepAttention

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """These rows of a tensor [R, …] of all."""
        return torch.cat([tensor[rows] for rows in self.rows]) if self.rows else tensor[:0]


class Layer(Protocol):
    """A decoder layer. `linears` are those of its linear layers that adapters can change."""

    linears: tuple[Linear, ...]

    def attend(self, hidden: torch.Tensor, inputs: StepInputs, wanted: Wanted | None = None) -> torch.Tensor:
        """Rows [R, H] after attention, residual included; all their keys and values are stored.

        Of the `wanted` rows alone, where they are given: the step's adapters have no others from then on.
        """
        ...

    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows [N, H] after the feed-forward part, residual included."""
        ...


class LeanLayer(nn.Module):
    """A layer of Qwen2-VL, Qwen2.5-VL or Qwen3-VL, whose weights it takes over.

    Queries, keys and values come from one product; activation, gate and residuals are done within the products.
    """

    def __init__(self, layer: Any, adapters: StepAdapters) -> None:
        super().__init__()
        self.adapters = adapters
        attention, mlp = layer.self_attn, layer.mlp
        self._index: int = attention.layer_idx
        self._scale: float = attention.scaling
        self._head_dim: int = attention.head_dim
        self._num_heads = attention.q_proj.out_features // self._head_dim
        self._num_turned = self._num_heads + attention.k_proj.out_features // self._head_dim
        order = neighbours(self._num_turned, self._head_dim).to(attention.q_proj.weight.device)
        self.linears = _lean_linears(layer, order)
        self._qkv_linears = self.linears[:3]
        self._out_linear, self._gate_linear, self._up_linear, self._down_linear = self.linears[3:]
        self._qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj, order=order)
        self._out = make_linear(attention.o_proj.weight, attention.o_proj.bias)
        self._head_norms = _head_norms(attention, self._num_turned - self._num_heads, order[: self._head_dim])
        self._gate = make_linear(mlp.gate_proj.weight, mlp.gate_proj.bias, SILU)
        self._up = make_linear(mlp.up_proj.weight, mlp.up_proj.bias)
        self._down = make_linear(mlp.down_proj.weight, mlp.down_proj.bias)
        self._before_attention, self._before_mlp = layer.input_layernorm, layer.post_attention_layernorm

    def attend(self, hidden: torch.Tensor, inputs: StepInputs, wanted: Wanted | None = None) -> torch.Tensor:
        """Rows [R, H], or of the wanted, after attention, residual included; all keys and values are stored."""
        rows = _normed(hidden, self._before_attention)
        product = self._qkv(rows)
        self.adapters.add(product, rows, self._qkv_linears)
        qkv = product.unflatten(-1, (-1, self._head_dim))
        turned = qkv[:, : self._num_turned]
        if self._head_norms is not None:
            turned = F.rms_norm(turned, (self._head_dim,), eps=self._head_norms[1]) * self._head_norms[0]
        rotate_in_place(turned, inputs.rotation)
        queries, keys = turned[:, : self._num_heads], turned[:, self._num_heads :].transpose(0, 1)
        values = qkv[:, self._num_turned :].transpose(0, 1)
        attention = inputs.attention
        if wanted is not None:
            attention, queries, hidden = wanted.attention, wanted.of(queries), wanted.of(hidden)
            self.adapters.keep(wanted.rows)
        attended = attention(self._index, queries.transpose(0, 1), keys, values, self._scale).transpose(0, 1).flatten(1)
        return self._with_adapters(self._out.plus(attended, hidden), attended, self._out_linear)

    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows [N, H] after the feed-forward part, residual included."""
        rows = _normed(hidden, self._before_mlp)
        added = self.adapters.added(rows, self._gate_linear)
        gate = self._gate(rows) if added is None else F.silu(self._gate.plus(rows, added))
        inner = self._with_adapters(self._up.times(rows, gate), rows, self._up_linear, gate)
        return self._with_adapters(self._down.plus(inner, hidden), inner, self._down_linear)

    def _with_adapters(
        self, product: torch.Tensor, rows: torch.Tensor, linear: Linear, factor: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.adapters.add(product, rows, (linear,), factor)
        return product


class WholeLayer:
    """Any other layer, by transformers' own code: mixtures of experts, layers that accelerate placed."""

    def __init__(self, layer: Any, index: int, adapters: StepAdapters) -> None:
        self._layer = layer
        self._adapters = adapters
        self.linears = adapt_linears(layer, f"{LANGUAGE}layers.{index}", adapters)
        # accelerate's hooks sit on the layer as a whole.
        self._is_hooked = hasattr(layer, "_hf_hook")

    def attend(self, hidden: torch.Tensor, inputs: StepInputs, wanted: Wanted | None = None) -> torch.Tensor:
        """Rows [R, H], or of the wanted, after attention, residual included; of a hooked layer, after all of it."""
        attended = self._attend(hidden, inputs)
        if wanted is None:
            return attended
        self._adapters.keep(wanted.rows)
        return wanted.of(attended)

    def _attend(self, hidden: torch.Tensor, inputs: StepInputs) -> torch.Tensor:
        call: dict[str, Any] = {
            "attention_mask": None,
            "position_ids": None,
            "past_key_values": None,
            "position_embeddings": inputs.cos_sin,
            "step": inputs.attention,
        }
        if self._is_hooked:
            whole: torch.Tensor = self._layer(hidden[None], **call)[0]
            return whole
        attended, _ = self._layer.self_attn(hidden_states=self._layer.input_layernorm(hidden[None]), **call)
        out: torch.Tensor = hidden + attended[0]
        return out

    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows [N, H] after the feed-forward part, residual included; a hooked layer has done it."""
        if self._is_hooked or not len(hidden):
            return hidden
        fed: torch.Tensor = self._layer.mlp(self._layer.post_attention_layernorm(hidden[None]))[0]
        return hidden + fed


def make_layers(text: Any, adapters: StepAdapters) -> list[Layer]:
    """The layers of a language model; lean ones take the place of transformers', so that no weight is held twice.

    They add what `adapters` says of the step's rows.
    """
    made: list[Layer] = []
    for index, layer in enumerate(text.layers):
        if isinstance(layer, LeanLayer):
            layer.adapters = adapters
        elif _is_known(layer):
            text.layers[index] = LeanLayer(layer, adapters)
        lean = text.layers[index]
        made.append(lean if isinstance(lean, LeanLayer) else WholeLayer(layer, index, adapters))
    return made


def _lean_linears(layer: Any, order: torch.Tensor) -> tuple[Linear, ...]:
    """The seven linear layers of a known layer, as they stand in the lean one's products; `order` is of its heads."""
    prefix, found, first = f"{LANGUAGE}layers.{layer.self_attn.layer_idx}", list[Linear](), 0
    for name in ("q_proj", "k_proj", "v_proj"):
        shape = _shape(getattr(layer.self_attn, name))
        turned = order[first : first + shape.out_features] - first
        found.append(Linear(f"{prefix}.self_attn.{name}", shape, first, turned if len(turned) else None))
        first += shape.out_features
    found.append(Linear(f"{prefix}.self_attn.o_proj", _shape(layer.self_attn.o_proj)))
    for name in ("gate_proj", "up_proj", "down_proj"):
        found.append(Linear(f"{prefix}.mlp.{name}", _shape(getattr(layer.mlp, name))))
    return tuple(found)


def _shape(linear: nn.Linear) -> Shape:
    return Shape(linear.out_features, linear.in_features)


def _is_known(layer: Any) -> bool:
    """Whether a layer is two residual blocks of plain linears: attention, and a gated feed-forward part with SiLU."""
    modules = dict(layer.named_modules())
    linears = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    names = {f"{parent}.{child}" for parent, children in linears.items() for child in children}
    norms = {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"}
    others = {"", "self_attn", "mlp", "mlp.act_fn"}
    return (
        names | others <= set(modules) <= names | others | norms
        and ("self_attn.q_norm" in modules) == ("self_attn.k_norm" in modules)
        and all(type(modules[name]) is nn.Linear for name in names)
        and all(hasattr(modules[name], "variance_epsilon") for name in norms & set(modules))
        and type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
        and not any(hasattr(module, "_hf_hook") for module in modules.values())
    )


def _joined(*linears: nn.Linear, order: torch.Tensor) -> Any:
    """Linears of the same input as one, its first rows in the given order."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    rest = torch.arange(len(order), len(weight), device=order.device)
    order = torch.cat([order, rest])
    biases = [linear.bias for linear in linears]
    bias = None if any(each is None for each in biases) else torch.cat([each.detach() for each in biases])[order]
    return make_linear(weight[order], bias)


def _head_norms(attention: Any, num_kv_heads: int, order: torch.Tensor) -> tuple[torch.Tensor, float] | None:
    """The weights [Hq + Hkv, D] of the norms of each head's queries and keys, and their epsilon; None without norms."""
    if not hasattr(attention, "q_norm"):
        return None
    num_heads = attention.q_proj.out_features // attention.head_dim
    queries, keys = (norm.weight.detach()[order] for norm in (attention.q_norm, attention.k_norm))
    weights = torch.cat([queries.expand(num_heads, -1), keys.expand(num_kv_heads, -1)])
    return weights, attention.q_norm.variance_epsilon


def _normed(rows: torch.Tensor, norm: Any) -> torch.Tensor:
    if can_norm(rows, norm.weight):
        return rms_norm(rows, norm.weight, norm.variance_epsilon)
    return F.rms_norm(rows, norm.weight.shape, norm.weight, norm.variance_epsilon)
