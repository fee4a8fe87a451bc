"""Random checkpoints at the sizes that the benchmarks are about, complete enough to serve from."""

from benchmarks.checkpoints.making import CACHE, make
from benchmarks.checkpoints.recipes import RECIPES, Recipe

__all__ = ["CACHE", "RECIPES", "Recipe", "make"]
