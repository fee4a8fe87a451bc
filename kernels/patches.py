"""The patch embedding as the matrix product that it is."""

from torch import nn


def patch_linear(conv: nn.Conv3d) -> nn.Linear:
    """The linear layer [C·T·P·P] → [H] of a convolution whose steps are as long as its kernel, sharing its weights.

    Raises `ValueError` for a convolution whose windows overlap or leave gaps.
    """
    if conv.stride != conv.kernel_size or any(conv.padding) or conv.groups != 1 or set(conv.dilation) != {1}:
        raise ValueError("only a convolution over separate patches is a matrix product")
    weight = conv.weight.detach().reshape(conv.out_channels, -1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear.eval()


def is_patch_embedding(module: nn.Module) -> bool:
    """Whether a module is the vision tower's patch embedding: nothing but one such convolution, named `proj`."""
    children = dict(module.named_children())
    return list(children) == ["proj"] and isinstance(children["proj"], nn.Conv3d)
