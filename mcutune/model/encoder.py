"""Stage-1 encoders: one modality each, trained alone on complete data, then frozen.

`utterance`: an MLP on the utterance's vector. `dialogue`: self-attention over the dialogue's utterances that have the
modality. Both end in a LayerNorm, so that R^m has one scale whatever the modality.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

HEADS = 4


class UtteranceEncoder(nn.Module):
    """R^m [.., W] from x [.., D]."""

    def __init__(self, dim: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [dim] + [width] * layers
        blocks: list[nn.Module] = []
        for before, after in zip(sizes, sizes[1:], strict=False):
            blocks += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*blocks[:-1])  # the last dropout belongs to the head, see stage 1
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        encoded: Tensor = self.norm(self.body(x))
        return encoded


class DialogueEncoder(nn.Module):
    """R^m [B, T, W] from x [B, T, D] and present [B, T]: utterances attend to those that have the modality."""

    def __init__(self, dim: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, HEADS, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        hidden = self.enter(x)
        # A dialogue without the modality would softmax over nothing; its outputs are never read.
        absent = ~(present | ~present.any(1, keepdim=True))
        for block in self.blocks:
            hidden = block(hidden, src_key_padding_mask=absent)
        encoded: Tensor = self.norm(hidden)
        return encoded


def make_encoder(configuration: Any, dim: int) -> UtteranceEncoder | DialogueEncoder:
    """The encoder that a configuration names, for a modality of D = dim features."""
    c = configuration
    kind = UtteranceEncoder if c.encoder_kind == "utterance" else DialogueEncoder
    return kind(dim, c.encoder_width, c.encoder_layers, c.encoder_dropout)


@torch.no_grad()
def encode(encoder: UtteranceEncoder | DialogueEncoder, x: Tensor, present: Tensor, dialogues: Tensor) -> Tensor:
    """R^m [N, W] of rows x [N, D] with present [N]; zero where absent.

    dialogues [B, T]: row numbers of every dialogue in order, −1 where it is shorter. Rows in no dialogue stay zero.
    """
    encoder.eval()
    if isinstance(encoder, UtteranceEncoder):
        return torch.where(present[:, None], encoder(x), 0.0)
    result = x.new_zeros(len(x), *encoder.norm.normalized_shape)
    for block in dialogues.split(32):
        rows = block.clamp_min(0)
        here = (block >= 0) & present[rows]
        encoded = encoder(torch.where(here[..., None], x[rows], 0.0), here)
        result[rows[here]] = encoded[here]
    return result
