"""C3D of the medical-action study (Tran et al., 2015; with batch normalisation as in Köpüklü et al., 2019)."""

import torch
from torch import nn

from health_actions.models.network3d import Network3d

# Of each group: channels of its convolutions, then frames that its pooling covers and by how many it moves on.
GROUPS = (((64,), 2, 1), ((128,), 2, 2), ((256, 256), 2, 2), ((512, 512), 2, 2), ((512, 512), 1, 2))


class C3d(Network3d):
    """C3D with batch normalisation (study B, Table 3), names and shapes of its weights and dropout as published."""

    head = "fc"

    def __init__(self, *, num_classes: int, frames: int, size: int, dropout: float = 0.5):
        super().__init__()
        inputs = 3
        for number, (widths, window, stride) in enumerate(GROUPS, start=1):
            layers = []
            for width in widths:
                layers += [nn.Conv3d(inputs, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
                inputs = width
            window = min(window, frames)  # clips of less than 16 frames run out of them before the last groups
            # The published network pads its last pooling: an odd row or column is kept, the first one pooled alone.
            padding = size % 2 if number == len(GROUPS) else 0
            layers.append(nn.MaxPool3d((window, 2, 2), (stride, 2, 2), (0, padding, padding)))
            frames, size = (frames - window) // stride + 1, (size + padding) // 2
            self.add_module(f"group{number}", nn.Sequential(*layers))
        self.fc1 = nn.Sequential(nn.Linear(inputs * frames * size**2, 4096), nn.ReLU(), nn.Dropout(dropout))
        self.fc2 = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout))
        self.fc = nn.Sequential(nn.Linear(4096, num_classes))
        self.initialise()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        maps = self.group3(self.group2(self.group1(clips)))
        maps = self.group5(self.group4(maps))
        return self.fc(self.fc2(self.fc1(maps.flatten(1))))
