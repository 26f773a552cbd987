"""3-D ResNets of the medical-action study (Hara et al., 2018; compared by Köpüklü et al., 2019)."""

import torch
from torch import nn
from torch.nn import functional

from health_actions.models.conv3d import Conv3d
from health_actions.models.network3d import GlobalMean, Network3d

# Blocks of each layer; kind of block; width of the first layer's 3 x 3 x 3 convolutions and their groups; shortcut.
ARCHITECTURES = {
    "resnet18": ((2, 2, 2, 2), "basic", 64, 1, "A"),
    "resnet50": ((3, 4, 6, 3), "bottleneck", 64, 1, "B"),
    "resnet101": ((3, 4, 23, 3), "bottleneck", 64, 1, "B"),
    "resnext101": ((3, 4, 23, 3), "bottleneck", 128, 32, "B"),
}


class Block(nn.Module):
    """Convolutions, each with batch normalisation, and a shortcut around all of them.

    Args:
        convolutions: (input channels, output channels, kernel, stride, groups) of each.
        shortcut: "A" or "B", see `ResNet3d`.
    """

    def __init__(self, convolutions: list[tuple[int, int, int, int, int]], shortcut: str):
        super().__init__()
        self.depth = len(convolutions)
        for number, (inputs, outputs, kernel, stride, groups) in enumerate(convolutions, start=1):
            convolution = Conv3d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm3d(outputs))
        inputs, self.stride = convolutions[0][0], max(stride for _, _, _, stride, _ in convolutions)
        self.added = outputs - inputs
        self.downsample = None
        if shortcut == "B" and (self.stride > 1 or self.added):
            self.downsample = nn.Sequential(Conv3d(inputs, outputs, 1, self.stride, bias=False),
                                            nn.BatchNorm3d(outputs))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, input channels, frames, height, width) -> maps, the last three divided by the stride."""
        if self.downsample is not None:
            shortcut = self.downsample(maps)
        else:  # The published code cut the gradient off here: the layers before learned from the other branch alone.
            shortcut = maps[:, :, ::self.stride, ::self.stride, ::self.stride]
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, 0, 0, self.added)) if self.added else shortcut
        for number in range(1, self.depth + 1):
            maps = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(maps))
            maps = functional.relu(maps if number < self.depth else maps + shortcut)
        return maps


class ResNet3d(Network3d):
    """3-D residual network (study B, Table 3), names and shapes of its weights as published.

    Args:
        architecture: one of `ARCHITECTURES`.
        num_classes: number of logits.
        size: not used; any height and width from 32 pixels on will do.
        pretrained, last_layer_only: see `Network3d.finish`.
        shortcut: where a block changes the maps' shape, "A" takes every other value and adds empty channels, "B" learns
            a 1 x 1 x 1 convolution. Default: as published, "A" for ResNet-18 and "B" for the others.

    Raises:
        ValueError: for a shortcut that does not exist.
    """

    head = "fc"

    def __init__(self, architecture: str, *, num_classes: int, size: int, pretrained: str | None = None,
                 shortcut: str | None = None, last_layer_only: bool = False):
        super().__init__(architecture)
        blocks, kind, width, groups, published_shortcut = ARCHITECTURES[architecture]
        self.shortcut = shortcut or published_shortcut
        if self.shortcut not in ("A", "B"):
            raise ValueError(f"{architecture}: shortcut must be 'A' or 'B', found {shortcut!r}")
        self.conv1 = Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        inputs = 64
        for layer, count in enumerate(blocks):
            inner = width * 2**layer
            outputs = inner if kind == "basic" else 256 * 2**layer
            made = []
            for number in range(count):
                stride = 2 if layer and not number else 1
                made.append(Block({
                    "basic": [(inputs, inner, 3, stride, 1), (inner, outputs, 3, 1, 1)],
                    "bottleneck": [(inputs, inner, 1, 1, 1), (inner, inner, 3, stride, groups),
                                   (inner, outputs, 1, 1, 1)],
                }[kind], self.shortcut))
                inputs = outputs
            self.add_module(f"layer{layer + 1}", nn.Sequential(*made))
        self.avgpool = GlobalMean()
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, Block) and module.depth == 3:  # begins as its shortcut: deep networks learn sooner
                nn.init.zeros_(module.bn3.weight)
        self.finish(pretrained, last_layer_only)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        maps = self.maxpool(functional.relu(self.bn1(self.conv1(self.arrange(clips)))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(self.avgpool(maps))
