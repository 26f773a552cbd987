"""What the 3-D CNNs of study B have in common: first weights, pretrained weights, a head that is trained alone."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from health_actions.models.published import load_published, read_weights
from health_actions.paths import at_root


class GlobalMean(nn.Module):
    """The mean over all frames and places that are left."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> (batch, channels)."""
        return maps.mean((2, 3, 4))


class Network3d(nn.Module):
    """A 3-D CNN of study B. A subclass builds its layers and ends with `finish`.

    Attributes:
        architecture: name for `build_model`.
        head: name of the part that makes the logits; the published code replaces it when fine-tuning.
        last_layer_only: whether the head alone is trained.
    """

    head = "classifier"

    def __init__(self, architecture: str):
        super().__init__()
        self.architecture = architecture
        self.last_layer_only = False

    def finish(self, pretrained: str | Path | None, last_layer_only: bool) -> None:
        """Give the layers their first weights, and freeze all but the head if so wished.

        Args:
            pretrained: None for random weights (Kaiming's, from the outputs), or the path of a released checkpoint
                file or of a model folder, from the project's root on if it is relative; everything but the head comes
                from there.
            last_layer_only: train the head alone; the other parts also keep their batch statistics.

        Raises:
            FileNotFoundError: when nothing is at that path; says the path in full.
            ValueError: when what is there does not fit this network; see `load_published`.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                # The published code counts the outputs of all groups, which leaves depthwise kernels so small that the
                # first steps of a short training undo them; here those of one group count.
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                module.weight.data.mul_(module.groups ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Weights in the order of the maps, see forward of the subclasses.
        self.to(memory_format=torch.channels_last_3d)
        if pretrained is not None:
            self.load_body(pretrained)
        self.last_layer_only = last_layer_only
        if last_layer_only:
            for name, part in self.named_children():
                part.requires_grad_(name == self.head)
            self.train(self.training)

    def load_body(self, pretrained: str | Path) -> None:
        """Load everything but the head, see `finish`."""
        path = at_root(pretrained).absolute()
        if not path.exists():
            raise FileNotFoundError(f"{self.architecture}: no pretrained weights at {path}; `pretrained` must be null "
                                    "(None), a released checkpoint file or a model folder")
        weights = read_weights(path)
        if not isinstance(weights["state_dict"], Mapping):
            raise ValueError(f"{path}: the checkpoint is no state dict")
        state = {name.removeprefix("module."): value for name, value in weights["state_dict"].items()}
        head = {name: value for name, value in self.state_dict().items() if name.startswith(f"{self.head}.")}
        state = {name: value for name, value in state.items() if not name.startswith(f"{self.head}.")}
        try:
            load_published(self, {**weights, "state_dict": {**state, **head}})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def train(self, mode: bool = True) -> "Network3d":
        """Where the head alone is trained, the other parts stay in evaluation mode."""
        super().train(mode)
        if self.last_layer_only:
            for name, part in self.named_children():
                part.train(mode and name == self.head)
        return self

    @staticmethod
    def arrange(clips: torch.Tensor) -> torch.Tensor:
        """Clips as the convolutions take them quickest: the channels of a pixel side by side."""
        return clips.contiguous(memory_format=torch.channels_last_3d)
