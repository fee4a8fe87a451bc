"""transformers' whole model with static batches, as its `generate` takes them."""

from benchmarks.systems import whole


class Worker(whole.Worker):
    """Eight questions at a time."""

    batch_size = 8
