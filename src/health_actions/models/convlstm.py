"""ConvLSTM of the hand-wash study: a recurrent network whose gates are convolutions (Shi et al., 2015)."""

import torch
from torch import nn
from torch.nn import functional


class ConvLstmCell(nn.Module):
    """One ConvLSTM layer; the four gates come from one convolution over (input, hidden state), as published."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.inputs, self.width = inputs, width
        self.conv = nn.Conv2d(inputs + width, 4 * width, 3, padding=1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, channels, frames, height, width) -> last hidden state (batch, self.width, height, width)."""
        batch, _, frames, height, width = clips.shape
        # The convolution is linear: its part over the input is done for all frames at once, the recurrent part a step.
        from_input, from_hidden = self.conv.weight.split([self.inputs, self.width], dim=1)
        padding = self.conv.padding
        images = clips.movedim(2, 0).flatten(0, 1)
        gates = functional.conv2d(images, from_input, self.conv.bias, padding=padding)
        hidden = clips.new_zeros(batch, self.width, height, width)
        cell = torch.zeros_like(hidden)
        for gate in gates.unflatten(0, (frames, batch)).unbind(0):
            gate = gate + functional.conv2d(hidden, from_hidden, padding=padding)
            input_gate, forget_gate, output_gate, candidate = gate.split(self.width, dim=1)
            cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * candidate.tanh()
            hidden = output_gate.sigmoid() * cell.tanh()
        return hidden


class ConvLstm(nn.Module):
    """ConvLSTM classifier (study A, Table 1): one layer of 8 channels, last hidden state, ReLU, dropout, linear."""

    def __init__(self, *, num_classes: int, size: int, width: int = 8, dropout: float = 0.8,
                 pretrained: str | None = None):
        super().__init__()
        if pretrained is not None:
            raise ValueError(f"convlstm has no pretrained weights; pretrained must be None, found {pretrained!r}")
        self.cell_list = nn.ModuleList([ConvLstmCell(3, width)])
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width * size * size, num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size) -> logits (batch, num_classes)."""
        hidden = self.cell_list[0](clips)
        return self.classifier(self.dropout(hidden.relu().flatten(1)))
