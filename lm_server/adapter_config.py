"""adapter_config.json as PEFT writes it: what of it decides how an adapter is applied, and what is not served.

Nothing is passed over: a field that asks for something else than a plain LoRA is refused by its name, and so is one
that is not known here and set. Source: `peft.LoraConfig` of PEFT 0.21.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rpc.errors import InvalidArgument

FILE = "adapter_config.json"
ALL_LINEAR = "all-linear"
MAX_RANK = 4096
MAX_PATTERN_CHARACTERS = 2000
MAX_PATTERN_REPEATS = 8
# Of initial values alone, or of how the training ran: the saved weights are as they are.
HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
READ = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    }
)
# Ways to begin that leave the model's own weights alone; the others train against changed ones.
BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")
NOTHING: tuple[object, ...] = (None, False, "", [], {})
LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")

Matcher = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """How an adapter is applied. Modules are named as the adapter's own file names them.

    Attributes:
        rank: Of every module without a rank of its own.
        alpha: Likewise.
        is_rank_stabilised: The scale is alpha / √rank instead of alpha / rank.
        ranks: Pattern → rank; the first that fits a module's name counts.
        alphas: Pattern → alpha, likewise.
        covers: Whether a module of this name is adapted.
        unmatched: Of module names, what the adapter is for and none of them is.
    """

    rank: int
    alpha: float
    is_rank_stabilised: bool
    ranks: tuple[tuple[re.Pattern[str], int], ...]
    alphas: tuple[tuple[re.Pattern[str], float], ...]
    covers: Matcher
    unmatched: Callable[[frozenset[str]], tuple[str, ...]]

    def rank_of(self, module: str) -> int:
        """The inner width of a module's two matrices."""
        return next((rank for pattern, rank in self.ranks if pattern.fullmatch(module)), self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's two matrices counts by. Source: rank stabilisation, arXiv 2312.03732."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.fullmatch(module)), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


def refused(what: str) -> InvalidArgument:
    """The error of an adapter that is not served, or no adapter of this model."""
    return InvalidArgument(what, reason="ADAPTER_INVALID")


def parse(text: bytes) -> LoraConfig:
    """The configuration that a file's bytes hold. Raises `InvalidArgument`, naming the field."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise refused(f"{FILE} is not JSON") from exc
    if not isinstance(fields, dict):
        raise refused(f"{FILE} is not a JSON object")
    _check_kind(fields)
    layers = _layers(fields)
    targets: Any = fields.get("target_modules")
    included = _matcher("target_modules", targets)
    excluded = _matcher("exclude_modules", fields["exclude_modules"]) if fields.get("exclude_modules") else _none

    def covers(module: str) -> bool:
        # PEFT looks at layers only where a list names modules by their ends.
        is_whole_name = isinstance(targets, str) or module in targets
        in_layer = layers is None or is_whole_name or _layer_of(module) in layers
        return included(module) and not excluded(module) and in_layer

    def unmatched(modules: frozenset[str]) -> tuple[str, ...]:
        if isinstance(targets, str):
            return () if any(map(included, modules)) else (targets,)
        return tuple(target for target in targets if not any(_ends_with(module, target) for module in modules))

    return LoraConfig(
        rank=_rank("r", fields.get("r")),
        alpha=_alpha("lora_alpha", fields.get("lora_alpha")),
        is_rank_stabilised=_flag(fields, "use_rslora"),
        ranks=_patterns(fields, "rank_pattern", _rank),
        alphas=_patterns(fields, "alpha_pattern", _alpha),
        covers=covers,
        unmatched=unmatched,
    )


def _check_kind(fields: Mapping[str, Any]) -> None:
    if fields.get("peft_type") != "LORA":
        raise refused(f"{FILE}: peft_type must be LORA")
    if fields.get("bias", "none") != "none":
        raise refused(f"{FILE}: bias must be none, trained biases are not served")
    beginning = fields.get("init_lora_weights", True)
    if beginning not in BEGINNINGS:
        raise refused(
            f"{FILE}: init_lora_weights {beginning!r:.40} changes the model's own weights, which is not served"
        )
    for name, value in sorted(fields.items()):
        if name not in HARMLESS and name not in READ and value not in NOTHING:
            raise refused(f"{FILE}: {name!r:.60} is set, which is not served")


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value not in (None, True, False):
        raise refused(f"{FILE}: {name} must be true or false")
    return bool(value)


def _rank(name: str, value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_RANK:
        raise refused(f"{FILE}: {name} must be a whole number from 1 to {MAX_RANK}")
    return value


def _alpha(name: str, value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise refused(f"{FILE}: {name} must be a number")
    return float(value)  # type: ignore[arg-type]


def _patterns(
    fields: Mapping[str, Any], name: str, read: Callable[[str, object], Any]
) -> tuple[tuple[re.Pattern[str], Any], ...]:
    given = fields.get(name) or {}
    if not isinstance(given, dict):
        raise refused(f"{FILE}: {name} must be an object")
    return tuple(
        (_compiled(name, rf"(?:.*\.)?(?:{key})", key), read(f"{name}[{key!r:.80}]", value))
        for key, value in given.items()
    )


def _matcher(name: str, targets: object) -> Matcher:
    if targets == ALL_LINEAR and name == "target_modules":
        # Of every linear layer but the head.
        return lambda module: not module.endswith("lm_head")
    if isinstance(targets, str) and targets:
        pattern = _compiled(name, targets, targets)
        return lambda module: pattern.fullmatch(module) is not None
    if not isinstance(targets, list) or not targets or not all(isinstance(each, str) and each for each in targets):
        raise refused(f"{FILE}: {name} must be a list of module names, or a pattern")
    return lambda module: any(_ends_with(module, target) for target in targets)


def _compiled(name: str, pattern: str, given: str) -> re.Pattern[str]:
    """A pattern whose search takes no longer than its few repeats allow: a group that repeats could take for ever."""
    repeats = sum(map(given.count, "*+{"))
    if len(given) > MAX_PATTERN_CHARACTERS or repeats > MAX_PATTERN_REPEATS or re.search(r"\)[*+{]", given):
        raise refused(f"{FILE}: a pattern in {name} is too long, repeats too much, or repeats a group")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise refused(f"{FILE}: a pattern in {name} is not a regular expression") from exc


def _layers(fields: Mapping[str, Any]) -> frozenset[int] | None:
    """The layers that are adapted; None: all."""
    if fields.get("layers_pattern") not in (None, "", [], "layers", ["layers"]):
        raise refused(f"{FILE}: layers_pattern must be layers")
    given = fields.get("layers_to_transform")
    if given is None or given == []:
        return None
    layers = given if isinstance(given, list) else [given]
    if not all(type(layer) is int and layer >= 0 for layer in layers):
        raise refused(f"{FILE}: layers_to_transform must be numbers of layers")
    return frozenset(layers)


def _layer_of(module: str) -> int | None:
    found = LAYER.match(module)
    return int(found[1]) if found else None


def _ends_with(module: str, target: str) -> bool:
    return module == target or module.endswith(f".{target}")


def _none(module: str) -> bool:
    return False
