"""3-D MobileNetV2 of the medical-action study (Sandler et al., 2018; in 3-D by Köpüklü et al., 2019)."""

import torch
from torch import nn

from health_actions.models.network3d import GlobalMean, Network3d, convolve

# Expansion, output channels at width 1, number of blocks, stride of the first of them.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """More channels by 1 x 1 x 1, depthwise 3 x 3 x 3, fewer channels by 1 x 1 x 1; a shortcut where shapes fit."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        inner = inputs * expansion
        self.conv = nn.Sequential(*(convolve(inputs, inner, 1, activation=nn.ReLU6) if expansion > 1 else []),
                                  *convolve(inner, inner, 3, stride, groups=inner, activation=nn.ReLU6),
                                  *convolve(inner, outputs, 1, activation=None))
        if self.shortcut:  # begins closer to its shortcut; at 0 many epochs stay at chance
            nn.init.constant_(self.conv[-1].weight, 0.5)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, inputs, frames, height, width) -> maps (batch, outputs, ...), the last three by the stride."""
        return maps + self.conv(maps) if self.shortcut else self.conv(maps)


class MobileNetV2(Network3d):
    """3-D MobileNetV2 (study B, Table 3), names and shapes of its weights as published.

    Args:
        width_mult: factor of all channels; published results are of 1.0. Less than 1/16 is a ValueError.
        dropout: published 0.9, with which short trainings stay at chance.
    """

    def __init__(self, *, num_classes: int, width_mult: float = 1.0, dropout: float = 0.9):
        super().__init__()
        if int(16 * width_mult) < 1:
            raise ValueError(f"mobilenetv2: width_mult must be at least 0.0625 (1/16), found {width_mult}")
        self.width_mult = width_mult
        inputs = int(32 * width_mult)
        layers = [nn.Sequential(*convolve(3, inputs, 3, (1, 2, 2), activation=nn.ReLU6))]
        for expansion, width, count, stride in STAGES:
            outputs = int(width * width_mult)
            for number in range(count):
                layers.append(InvertedResidual(inputs, outputs, expansion, 1 if number else stride))
                inputs = outputs
        last = int(1280 * max(width_mult, 1.0))
        layers.append(nn.Sequential(*convolve(inputs, last, 1, activation=nn.ReLU6)))
        self.features = nn.Sequential(*layers)
        self.avgpool = GlobalMean()
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        self.initialise()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        return self.classifier(self.avgpool(self.features(clips)))
