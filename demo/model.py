"""The demo's Qwen2-VL: its configuration, and a forward for training that is equal to transformers' and faster.

All training pictures have one size, so the tower runs as one [images, patches, width] batch; the questions about a
picture are packed behind its tokens in one row and kept apart by a mask.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLAttention, VisionAttention

from demo.scenes import COLORS, IMAGE_SIZE, SHAPES
from demo.tokenizer import END_OF_TEXT, IM_END, IMAGE_PAD, VISION_END, VISION_START

PATCH, MERGE = 14, 2
GRID = IMAGE_SIZE // PATCH  # patches a side
IMAGE_TOKENS = (GRID // MERGE) ** 2

# What the auxiliary head says of each image token: shape or none, colour, small or big, is it a centre, its x and y.
AUX_SPLIT = [1 + len(SHAPES), len(COLORS), 2, 1, 2]


def build_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2VLConfig:
    """The tiny configuration for `tokenizer`'s ids.

    The language rope base is 10, not 10^6: positions in one picture differ by 5 at most, and with the usual base the
    dimensions that carry the column would turn by less than a thousandth of a radian over that distance.
    """

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": token(END_OF_TEXT),
        "eos_token_id": token(IM_END),
        "pad_token_id": token(END_OF_TEXT),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    vision = {
        "depth": 4,
        "embed_dim": 128,
        "hidden_size": 128,
        "num_heads": 4,
        "mlp_ratio": 4,
        "in_channels": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "initializer_range": 0.05,
        "dtype": "float32",
    }
    return Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token(IMAGE_PAD),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        tie_word_embeddings=True,
        dtype="float32",
    )


def build_generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy, ending at either of Qwen's two end tokens."""
    ends = [int(tokenizer.convert_tokens_to_ids(t)) for t in (IM_END, END_OF_TEXT)]
    return GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[1], bos_token_id=ends[1])


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Leaves pictures from 84 x 84 to 336 x 336 at about their size."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2, min_pixels=84 * 84, max_pixels=336 * 336
    )


def vision_positions() -> Tensor:
    """Row and column of each patch in the processor's order (merge groups together), [patches, 2]."""
    rows = torch.arange(GRID)[:, None].expand(GRID, GRID)
    blocks = (GRID // MERGE, MERGE, GRID // MERGE, MERGE)
    order = [grid.reshape(blocks).transpose(1, 2).reshape(-1) for grid in (rows, rows.T)]
    return torch.stack(order, dim=1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class TrainingForward(nn.Module):
    """transformers' model with an auxiliary head on the image tokens, run in batches of equal pictures."""

    def __init__(self, model: Qwen2VLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.aux_head = nn.Linear(model.config.vision_config.hidden_size, sum(AUX_SPLIT))
        cos, sin = model.model.visual.rotary_pos_emb(torch.zeros(1), vision_positions())
        self._vision_rope = (cos, sin)  # each [patches, head_dim]

    def encode(self, patches: Tensor) -> Tensor:
        """Image tokens [B, IMAGE_TOKENS, H] of single-frame patches [B, GRID * GRID, 3 * PATCH * PATCH]."""
        visual = self.model.model.visual
        # The processor repeats the frame along time: the kernel summed over time gives the same on one frame.
        weight = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
        hidden = F.linear(patches, weight)
        for block in visual.blocks:
            hidden = hidden + self._vision_attention(block.attn, block.norm1(hidden))
            hidden = hidden + block.mlp(block.norm2(hidden))
        tokens: Tensor = visual.merger(hidden)
        return tokens.view(patches.shape[0], IMAGE_TOKENS, -1)

    def _vision_attention(self, attention: VisionAttention, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = attention.qkv(x).view(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        cos, sin = self._vision_rope
        mixed = F.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        projected: Tensor = attention.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected

    def answer_logits(
        self, image_tokens: Tensor, input_ids: Tensor, positions: Tensor, mask: Tensor, targets: Tensor
    ) -> Tensor:
        """Logits [N, V] at the flat row places `targets` [N].

        input_ids [B, L] hold image-pad ids where image_tokens [B, IMAGE_TOKENS, H] go; positions [3, B, L];
        mask [B, 1, L, L] is true where a token may look.
        """
        language = self.model.model.language_model
        hidden = language.embed_tokens(input_ids)
        is_image = (input_ids == self.model.config.image_token_id).unsqueeze(-1)
        hidden = hidden.masked_scatter(is_image, image_tokens)
        cos, sin = (t.unsqueeze(1) for t in language.rotary_emb(hidden, positions))
        for layer in language.layers:
            hidden = hidden + self._language_attention(layer.self_attn, layer.input_layernorm(hidden), cos, sin, mask)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        chosen = language.norm(hidden.flatten(0, 1)[targets])
        return F.linear(chosen, language.embed_tokens.weight)

    @staticmethod
    def _language_attention(attention: Qwen2VLAttention, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            project(x).view(batch, length, -1, attention.head_dim).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        groups = attention.num_key_value_groups
        key = _rotate(key, cos, sin).repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
        mixed = F.scaled_dot_product_attention(_rotate(query, cos, sin), key, value, attn_mask=mask)
        projected: Tensor = attention.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected
