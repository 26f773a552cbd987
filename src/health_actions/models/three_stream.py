"""Three-stream rival of the hand-wash study (Table 5): colours, motion and edges, judged apart and averaged."""

import math

import numpy as np
import torch
from torch import nn

from health_actions.data.streams import draw_flow, draw_gradients
from health_actions.models.cnn_lstm import BACKBONES, FrameNetwork, LstmHead


def fuse_streams(logits: torch.Tensor) -> torch.Tensor:
    """Logits (batch, streams, classes) -> (batch, classes): the log of the summed probabilities; others stay."""
    return logits.log_softmax(-1).logsumexp(1) if logits.ndim == 3 else logits


class ThreeStream(FrameNetwork):
    """A frozen CNN looks at RGB frames, optical flow and oriented gradients; each stream has its own LSTM (Table 5).

    The published rival had DenseNets (`backbone="densenet121"`). One backbone serves all three streams: frozen, each
    would have the same weights. Flow is computed by OpenCV and HOG by scikit-image, which pass no gradients back, so
    freeze=False is a ValueError. Other arguments as of `CnnLstm`; width, dropout and grid of each stream.
    """

    streams = ("rgb", "flow", "gradients")

    def __init__(self, *, num_classes: int, size: int, pretrained: str | None = None,
                 backbone: str = "efficientnet_lite0", freeze: bool | None = None, lstm_width: int | None = None,
                 dropout: float = 0.3, grid: int = 4):
        if freeze is False:
            raise ValueError("three_stream: the backbone must be frozen, found freeze=False; leave `freeze` out")
        super().__init__(backbone, size=size, pretrained=pretrained, freeze=True, grid=grid)
        for name, values in zip(("mean", "std"), BACKBONES[backbone][1]):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1, 1), persistent=False)
        self.heads = nn.ModuleList(
            LstmHead(self.feature_width, num_classes=num_classes, size=size, lstm_width=lstm_width, dropout=dropout)
            for _ in self.streams)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """RGB clips (batch, 3, frames, size, size), 0-1 -> features (batch, frames, 3 * feature_width)."""
        low, high = clips.aminmax()
        if low < 0 or high > 1:
            raise ValueError("three_stream takes clips in 0-1 and normalises them itself; "
                             f"found {low:.2f} to {high:.2f}")
        frames = (clips.detach().float() * 255).round().byte().permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
        drawn = (np.stack([draw(clip) for clip in frames]) for draw in (draw_flow, draw_gradients))
        drawn = (torch.from_numpy(images).to(clips.device).permute(0, 4, 1, 2, 3) / 255 for images in drawn)
        encode = super().encode
        return torch.cat([encode((stream - self.mean) / self.std) for stream in (clips, *drawn)], dim=-1)

    def classify_streams(self, features: torch.Tensor) -> torch.Tensor:
        """Features of `encode` -> logits of each stream (batch, 3, num_classes), as `streams`."""
        parts = features.chunk(3, dim=-1)
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], dim=1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Features of `encode` -> logits (batch, num_classes): the log of the streams' mean probabilities."""
        return fuse_streams(self.classify_streams(features).float()) - math.log(len(self.streams))
