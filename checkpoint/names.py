"""From a tensor's name on disk to its canonical name: the one it has inside transformers' whole model.

Canonical names start with `model.visual.`, `model.language_model.` or `lm_head.` in every family. Wrappers that were
saved along with the model (torch.compile's `_orig_mod`, DataParallel's `module`) are taken off, wherever they stand.
"""

from collections import Counter
from collections.abc import Iterable

WRAPPERS = ("_orig_mod", "module")


def unwrap(disk_name: str) -> str:
    """The name without wrapper segments: `model._orig_mod.layers.0` → `model.layers.0`."""
    return ".".join(part for part in disk_name.split(".") if part not in WRAPPERS)


def describe_repairs(disk_names: Iterable[str]) -> tuple[str, ...]:
    """One sentence for each wrapper found: which, in how many tensors, and the first of them. Empty where none was."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for name in sorted(disk_names):
        for wrapper in set(name.split(".")) & set(WRAPPERS):
            counts[wrapper] += 1
            first.setdefault(wrapper, name)
    return tuple(f"{w}. removed from {counts[w]} tensor names, as in {first[w]}" for w in WRAPPERS if counts[w])
