"""3-D ShuffleNetV2 of the medical-action study (Ma et al., 2018; in 3-D by Köpüklü et al., 2019)."""

import torch
from torch import nn

from health_actions.models.network3d import GlobalMean, Network3d, convolve

# Channels of the three stages and of the last convolution, by `width_mult`.
WIDTHS = {0.25: (32, 64, 128, 1024), 0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024),
          1.5: (176, 352, 704, 1024), 2.0: (224, 488, 976, 2048)}
UNITS = (4, 8, 4)  # of the three stages


class ChannelShuffle(nn.Module):
    """Two branches' channels in turn: the paper's concatenation and channel shuffle of two groups in one."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Two maps (batch, channels, frames, height, width) -> maps (batch, 2 * channels, ...)."""
        return torch.stack([first, second], dim=2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """Two branches whose channels are shuffled: with a stride of 2 both convolve, with one of 1 the second alone."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        half = outputs // 2
        self.banch1 = None  # "banch" is how the published weights spell it
        if stride > 1:
            self.banch1 = nn.Sequential(*convolve(inputs, inputs, 3, stride, groups=inputs, activation=None),
                                        *convolve(inputs, half, 1))
        self.banch2 = nn.Sequential(*convolve(inputs if stride > 1 else half, half, 1),
                                    *convolve(half, half, 3, stride, groups=half, activation=None),
                                    *convolve(half, half, 1))
        self.shuffle = ChannelShuffle()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, inputs, frames, height, width) -> maps (batch, outputs, ...), the last three by the stride."""
        if self.banch1 is not None:
            return self.shuffle(self.banch1(maps), self.banch2(maps))
        first, second = maps.chunk(2, dim=1)
        return self.shuffle(first, self.banch2(second))


class ShuffleNetV2(Network3d):
    """3-D ShuffleNetV2 (study B, Table 3), names and shapes of its weights as published.

    Args:
        width_mult: one of `WIDTHS`, else a ValueError; published results are of 1.0.
        dropout: published 0.9, with which short trainings stay at chance.
    """

    def __init__(self, *, num_classes: int, width_mult: float = 1.0, dropout: float = 0.9):
        super().__init__()
        if width_mult not in WIDTHS:
            raise ValueError(f"shufflenetv2: width_mult must be one of {list(WIDTHS)}, found {width_mult}")
        self.width_mult = width_mult
        *stages, last = WIDTHS[width_mult]
        self.conv1 = nn.Sequential(*convolve(3, 24, 3, (1, 2, 2)))
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        inputs, units = 24, []
        for outputs, count in zip(stages, UNITS, strict=True):
            for number in range(count):
                units.append(ShuffleUnit(inputs, outputs, 1 if number else 2))
                inputs = outputs
        self.features = nn.Sequential(*units)
        self.conv_last = nn.Sequential(*convolve(inputs, last, 1))
        self.avgpool = GlobalMean()
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        self.initialise()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        maps = self.features(self.maxpool(self.conv1(clips)))
        return self.classifier(self.avgpool(self.conv_last(maps)))
