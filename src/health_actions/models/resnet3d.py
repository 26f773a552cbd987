"""3-D ResNets of the medical-action study (Hara et al., 2018; compared by Köpüklü et al., 2019)."""

import torch
from torch import nn
from torch.nn import functional

from health_actions.models.network3d import GlobalMean, Network3d


class PaddedShortcut(nn.Module):
    """Shortcut A: every `stride`-th value of each axis, and `added` empty channels.

    The published code stops the gradient here, so that earlier layers learn from the other branch alone; this does not.
    """

    def __init__(self, stride: int, added: int):
        super().__init__()
        self.stride, self.added = stride, added

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> maps (batch, channels + added, ...)."""
        maps = maps[:, :, ::self.stride, ::self.stride, ::self.stride]
        return functional.pad(maps, (0, 0, 0, 0, 0, 0, 0, self.added))


def build_shortcut(kind: str, inputs: int, outputs: int, stride: int) -> nn.Module:
    """What a block adds to its convolutions' output: its input, by `kind` "A" or "B" where shapes differ."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "A":
        return PaddedShortcut(stride, outputs - inputs)
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions from `inputs` to `inner` to `outputs` channels, and a shortcut around them."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, groups: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, outputs, 3, 1, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.downsample = build_shortcut(shortcut, inputs, outputs, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, inputs, frames, height, width) -> maps (batch, outputs, ...), the last three by the stride."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))


class Bottleneck(nn.Module):
    """1 x 1 x 1, 3 x 3 x 3 (with stride and groups) and 1 x 1 x 1 convolutions, and a shortcut around them."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, groups: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        nn.init.constant_(self.bn3.weight, 0.25)  # begins close to its shortcut; at 0 many epochs stay at chance
        self.downsample = build_shortcut(shortcut, inputs, outputs, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, inputs, frames, height, width) -> maps (batch, outputs, ...), the last three by the stride."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


# Block, how many in each layer; inner and outer channels of the first layer, doubled in each next; groups; shortcut.
RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64, 64, 1, "A"),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64, 256, 1, "B"),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 64, 256, 1, "B"),
    "resnext101": (Bottleneck, (3, 4, 23, 3), 128, 256, 32, "B"),
}


class ResNet3d(Network3d):
    """3-D residual network (study B, Table 3), names and shapes of its weights as published.

    Where a block changes the maps' shape, shortcut "A" takes every other value and adds empty channels, "B" learns a
    1 x 1 x 1 convolution. Default, as published: "A" for ResNet-18, "B" for the others. Others: ValueError.
    """

    head = "fc"

    def __init__(self, architecture: str, *, num_classes: int, shortcut: str | None = None):
        super().__init__()
        block, counts, inner, outputs, groups, published_shortcut = RESNETS[architecture]
        shortcut = shortcut or published_shortcut
        if shortcut not in ("A", "B"):
            raise ValueError(f"{architecture}: shortcut must be 'A' or 'B', found {shortcut!r}")
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        inputs = 64
        for layer, count in enumerate(counts):
            blocks = []
            for number in range(count):
                stride = 2 if layer and not number else 1
                blocks.append(block(inputs, inner * 2**layer, outputs * 2**layer, stride, groups, shortcut))
                inputs = outputs * 2**layer
            self.add_module(f"layer{layer + 1}", nn.Sequential(*blocks))
        self.avgpool = GlobalMean()
        self.fc = nn.Linear(inputs, num_classes)
        self.initialise()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        maps = self.maxpool(functional.relu(self.bn1(self.conv1(clips))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(self.avgpool(maps))
