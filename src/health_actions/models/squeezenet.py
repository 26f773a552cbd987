"""3-D SqueezeNet 1.1 of the medical-action study (Iandola et al., 2016; in 3-D by Köpüklü et al., 2019)."""

import torch
from torch import nn
from torch.nn import functional

from health_actions.models.network3d import GlobalMean, Network3d

# Channels of the squeezed and of each expanded half, two fire modules of each between two poolings.
FIRES = ((16, 64), (32, 128), (48, 192), (64, 256))


class FireModule(nn.Module):
    """Fewer channels (`squeezed`), then two halves of more: by 1 x 1 x 1 and by 3 x 3 x 3 convolutions."""

    def __init__(self, inputs: int, squeezed: int, expanded: int):
        super().__init__()
        self.bypass = inputs == 2 * expanded
        self.squeeze, self.squeeze_bn = nn.Conv3d(inputs, squeezed, 1), nn.BatchNorm3d(squeezed)
        self.expand1x1, self.expand1x1_bn = nn.Conv3d(squeezed, expanded, 1), nn.BatchNorm3d(expanded)
        self.expand3x3, self.expand3x3_bn = nn.Conv3d(squeezed, expanded, 3, padding=1), nn.BatchNorm3d(expanded)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, inputs, frames, height, width) -> maps (batch, 2 * expanded, frames, height, width)."""
        squeezed = functional.relu(self.squeeze_bn(self.squeeze(maps)))
        halves = self.expand1x1_bn(self.expand1x1(squeezed)), self.expand3x3_bn(self.expand3x3(squeezed))
        result = torch.cat(halves, dim=1)
        return functional.relu(result + maps if self.bypass else result)


class SqueezeNet(Network3d):
    """3-D SqueezeNet 1.1 (study B, Table 3), names and shapes of its weights and dropout as published."""

    def __init__(self, *, num_classes: int, dropout: float = 0.5):
        super().__init__()
        layers = [nn.Conv3d(3, 64, 3, (1, 2, 2), 1), nn.BatchNorm3d(64), nn.ReLU(inplace=True)]
        inputs = 64
        for squeezed, expanded in FIRES:
            layers.append(nn.MaxPool3d(3, 2, 1))
            layers += [FireModule(inputs, squeezed, expanded), FireModule(2 * expanded, squeezed, expanded)]
            inputs = 2 * expanded
        self.features = nn.Sequential(*layers)
        # The ReLU keeps logits from being negative, as published.
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Conv3d(inputs, num_classes, 1), nn.ReLU(), GlobalMean())
        self.initialise()
        nn.init.normal_(self.classifier[1].weight, std=0.01)
        nn.init.ones_(self.classifier[1].bias)  # at 0, a class soon has a logit of 0 on all clips, and never learns

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        return self.classifier(self.features(clips))
