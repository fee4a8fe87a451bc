"""Attention as the few large matrix products that it is, with the log-sum-exp by which partial results are merged.

On the CPU in float32 the products go through oneDNN, which uses the widest vectors of any maker's processor; torch's
own flash kernel goes through MKL, which on some uses half of them. A tile of scores stays in the processor's cache
between the two products. Elsewhere torch's kernels are used.
"""

import torch

from kernels.linear import can_pack

# Output [Hq, R, D] of some rows over some keys, and the log-sum-exp [Hq, R] of their scores, float32.
Partial = tuple[torch.Tensor, torch.Tensor]

# Scores of a tile: 2.4 MB, about what two cores keep to themselves.
TILE_SCORES = 600_000
LEAST_TILE_ROWS = 64
# A causal tile computes half a square of scores for nothing, so it is kept low.
CAUSAL_TILE_ROWS = 128
# Smaller ones than this go faster through torch's kernel: rows of a group of heads, and their scores.
LEAST_ROWS = 96
LEAST_SCORES = 65_536


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    *,
    is_causal: bool = False,
    with_lse: bool = True,
) -> Partial:
    """Every row over every key, or causally over the keys up to its own.

    Args:
        queries: [Hq, R, D]; heads that share a key head are neighbours.
        keys: [Hkv, S, D], Hkv dividing Hq.
        values: [Hkv, S, D].
        scale: What scores are multiplied by.
        is_causal: Row r sees the keys up to S - R + r: its own is the R - r'th from the end.
        with_lse: Without it the second result may be anything.

    Returns:
        Output [Hq, R, D] in the queries' dtype, and the log-sum-exp [Hq, R] of the scores in float32.
    """
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads = keys.shape[0]
    grouped = queries.reshape(num_kv_heads, num_heads // num_kv_heads, num_rows, head_dim)
    if _is_large(queries, grouped.shape[1] * num_rows, keys.shape[1]):
        out, lse = _by_products(grouped, keys, values, scale, is_causal, with_lse)
    elif is_causal:
        out, lse = _causal(grouped, keys, values, scale)
    else:
        out, lse = flash(grouped.flatten(1, 2)[None], keys[None], values[None], scale)
    return out.reshape(queries.shape), lse.reshape(num_heads, num_rows)


def attend_blocks(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention within each of many equal blocks [B, H, R, D]: the output alone, of the same shape."""
    if _is_large(queries, queries.shape[2], keys.shape[2]):
        # [B, H, ...] are B·H heads of their own.
        q, k, v = (each.flatten(0, 1) for each in (queries, keys, values))
        return attend(q, k, v, scale, with_lse=False)[0].view(queries.shape)
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=scale)


def attend_many(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, mask: torch.Tensor
) -> Partial:
    """Many small attentions: queries [B, R, D], keys and values [B, S, D], `mask` [B, R, S] added to the scores.

    Returns output [B, R, D] in the queries' dtype and the log-sum-exp [B, R] in float32. Every row must see some key.
    """
    if queries.dtype is not torch.float32:
        out, lse = flash(queries[:, None], keys[:, None], values[:, None], scale, mask[:, None])
        return out[:, 0], lse[:, 0]
    # For few rows a batch of plain products costs a third of torch's flash kernel.
    scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale)
    lse = _softmax(scores)
    return torch.bmm(scores, values), lse


def _is_large(queries: torch.Tensor, group_rows: int, num_keys: int) -> bool:
    """Whether products of their own pay."""
    return group_rows >= LEAST_ROWS and group_rows * num_keys >= LEAST_SCORES and _is_for_products(queries)


def _is_for_products(tensor: torch.Tensor) -> bool:
    """Whether products with a tensor of this kind are best left to oneDNN: float32 on the CPU."""
    return tensor.dtype is torch.float32 and can_pack(tensor)


def flash(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> Partial:
    """Torch's own attention [B, H, R, D] × [B, H, S, D], with its log-sum-exp [B, H, R].

    `mask` [B, 1, R, S] is added to the scores.
    """
    if queries.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, False, attn_mask=mask, scale=scale
        )
        return out, lse.float()
    scores = torch.matmul(queries.float(), keys.float().transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    lse = torch.logsumexp(scores, dim=-1)
    return torch.matmul(torch.exp(scores - lse[..., None]), values.float()).to(queries.dtype), lse


def upper_triangle(rows: int, keys: int, device: torch.device) -> torch.Tensor:
    """-inf [rows, keys] above the diagonal that ends in the lower right corner, 0 elsewhere."""
    return torch.full((rows, keys), float("-inf"), device=device).triu(keys - rows + 1)


def _causal(grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Partial:
    """Few rows, causally: [Hkv, G, R, D] over [Hkv, S, D]."""
    num_kv_heads, group, num_rows, head_dim = grouped.shape
    # The kernel's own causal mask begins in the upper left corner, and so would fit square scores only.
    mask = upper_triangle(num_rows, keys.shape[1], grouped.device).repeat(group, 1).to(grouped.dtype)
    stacked = grouped.reshape(1, num_kv_heads, group * num_rows, head_dim)
    return flash(stacked, keys[None], values[None], scale, mask[None, None])


def _by_products(
    grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, is_causal: bool, with_lse: bool
) -> Partial:
    """[Hkv, G, R, D] over [Hkv, S, D], a tile of rows at a time."""
    num_kv_heads, group, num_rows, head_dim = grouped.shape
    num_keys = keys.shape[1]
    keys, values = _with_dense_heads(keys), _with_dense_heads(values)
    out = torch.empty(num_kv_heads, group, num_rows, head_dim)
    lse = torch.empty(num_kv_heads, group, num_rows)
    # Contiguous, whatever the queries were a view of.
    grouped = torch.mul(grouped, scale, out=torch.empty(grouped.shape))
    whole = (grouped, out, lse)
    if not is_causal:
        # Which head of a group a row is makes no difference: all of a group's rows are one matrix.
        shape = (num_kv_heads, 1, group * num_rows)
        whole = (grouped.view(*shape, head_dim), out.view(*shape, head_dim), lse.view(shape))
    step = CAUSAL_TILE_ROWS if is_causal else max(TILE_SCORES // num_keys, LEAST_TILE_ROWS)
    for start in range(0, whole[0].shape[2], step):
        tile = slice(start, min(start + step, whole[0].shape[2]))
        seen = num_keys - num_rows + tile.stop if is_causal else num_keys
        hidden = upper_triangle(tile.stop - start, tile.stop - start, grouped.device) if is_causal else None
        for head in range(num_kv_heads):
            rows, part, total = (each[head, :, tile] for each in whole)
            _tile(rows, keys[head, :seen], values[head, :seen], hidden, part, total if with_lse else None)
    return out, lse


def _with_dense_heads(tensor: torch.Tensor) -> torch.Tensor:
    """[Hkv, S, D] whose every head is one dense matrix: others oneDNN takes, but a thousand times as slowly."""
    return tensor if tensor.stride()[1:] == (tensor.shape[2], 1) else tensor.contiguous()


def _tile(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    hidden: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    """Rows [G, R, D] over keys [S, D], the last masked by `hidden` [R, R], into out [G, R, D] and lse [G, R]."""
    group, num_rows, head_dim = rows.shape
    scores = product(rows.reshape(group * num_rows, head_dim), keys)
    if hidden is not None:
        scores.view(group, num_rows, -1)[:, :, -num_rows:] += hidden
    if lse is None:
        torch.softmax(scores, -1, out=scores)
    else:
        lse.copy_(_softmax(scores).view(lse.shape))
    out.copy_(product(scores, values.t()).view(out.shape))


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Turns scores [..., S] into probabilities, in place, and returns their log-sum-exp [...]."""
    highest = scores.amax(-1)
    torch.softmax(scores, -1, out=scores)
    # The highest probability is exp(highest score - log-sum-exp), and never underflows.
    return highest - scores.amax(-1).log()


def product(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Products [N, M] of rows [N, K] and columns [M, K], by oneDNN."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, None, "none", [], "")
    return out
