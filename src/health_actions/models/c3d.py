"""C3D of the medical-action study (Tran et al., 2015; with batch normalisation as in Köpüklü et al., 2019)."""

import torch
from torch import nn
from torch.nn import functional

from health_actions.models.conv3d import Conv3d
from health_actions.models.network3d import Network3d

# Channels of the convolutions of each group; frames that its pooling looks at, and by how many it moves on.
GROUPS = (((64,), 2, 1), ((128,), 2, 2), ((256, 256), 2, 2), ((512, 512), 2, 2), ((512, 512), 1, 2))


class Pool(nn.Module):
    """Maximum over 2 x 2 pixels and a few frames; fewer frames where there are fewer.

    Args:
        window, stride: along the frames.
        keep: whether a row or column that is left over is kept (the last group) or dropped (the others).
    """

    def __init__(self, window: int, stride: int, *, keep: bool):
        super().__init__()
        self.window, self.stride, self.keep = window, stride, keep

    def measure(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width of the maps that come out for those that go in."""
        frames, *sides = shape
        return ((frames - min(self.window, frames)) // self.stride + 1,
                *((side + self.keep) // 2 for side in sides))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> maps, see `measure`."""
        frames, *sides = maps.shape[2:]
        # The published network pads in front: a left-over first row is pooled alone.
        padding = (0, *(side % 2 if self.keep else 0 for side in sides))
        return functional.max_pool3d(maps, (min(self.window, frames), 2, 2), (self.stride, 2, 2), padding)


class C3d(Network3d):
    """C3D with batch normalisation (study B, Table 3), names and shapes of its weights as published.

    Args:
        num_classes: number of logits.
        frames, size: of the clips; they make the width of the first linear layer.
        pretrained, last_layer_only: see `Network3d.finish`.
        dropout: probability behind both hidden linear layers; published 0.5.
    """

    head = "fc"

    def __init__(self, *, num_classes: int, frames: int, size: int, pretrained: str | None = None,
                 dropout: float = 0.5, last_layer_only: bool = False):
        super().__init__("c3d")
        inputs, shape = 3, (frames, size, size)
        for number, (widths, window, stride) in enumerate(GROUPS, start=1):
            layers = []
            for width in widths:
                layers += [Conv3d(inputs, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
                inputs = width
            # Published: the first group's pool takes two frames, one on from the other; the last group's takes one.
            pool = Pool(window, stride, keep=number == len(GROUPS))
            shape = pool.measure(shape)
            self.add_module(f"group{number}", nn.Sequential(*layers, pool))
        features = inputs * shape[0] * shape[1] * shape[2]
        self.fc1 = nn.Sequential(nn.Linear(features, 4096), nn.ReLU(), nn.Dropout(dropout))
        self.fc2 = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout))
        self.fc = nn.Sequential(nn.Linear(4096, num_classes))
        self.finish(pretrained, last_layer_only)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        maps = self.group3(self.group2(self.group1(self.arrange(clips))))
        maps = self.group5(self.group4(maps))
        return self.fc(self.fc2(self.fc1(maps.flatten(1))))
