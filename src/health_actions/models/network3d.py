"""What the 3-D CNNs of study B have in common: small layers, first weights, a head that can be trained alone."""

import torch
from torch import nn


def convolve(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int, int] = 1, *, groups: int = 1,
             activation: type[nn.Module] | None = nn.ReLU) -> list[nn.Module]:
    """Convolution without bias (padded to keep the size), batch normalisation and, unless None, the activation."""
    layers = [nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
              nn.BatchNorm3d(outputs)]
    return layers if activation is None else [*layers, activation(inplace=True)]


class GlobalMean(nn.Module):
    """The mean over all frames and pixels of a map."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> (batch, channels)."""
        return maps.mean((2, 3, 4))


class Network3d(nn.Module):
    """A 3-D CNN of study B. A subclass builds its layers and ends with `initialise`; `build_model` does the rest."""

    architecture: str | None = None  # name for `build_model`, which sets it
    head = "classifier"  # name of the part that makes the logits; it is replaced for fine-tuning
    last_layer_only = False  # whether the head alone is trained

    def initialise(self) -> None:
        """Give the convolutions their first weights: Kaiming's (He et al., 2015), by the number of outputs."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                # The published code counts the outputs of all groups, which leaves depthwise kernels so small that the
                # first steps of a short training undo them; here those of one group count.
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                module.weight.data.mul_(module.groups ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def freeze_body(self) -> None:
        """Train the head alone; the other parts also keep their batch statistics."""
        self.last_layer_only = True
        for name, part in self.named_children():
            part.requires_grad_(name == self.head)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Network3d":
        """Switch to training mode; a frozen body stays in evaluation mode."""
        super().train(mode)
        if self.last_layer_only:
            for name, part in self.named_children():
                part.train(mode and name == self.head)
        return self
