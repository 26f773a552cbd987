"""A 3-D convolution that equals torch's, with right gradients in bfloat16 and quicker where maps are thin or deep."""

import functools

import torch
from torch import nn
from torch.nn import functional


@functools.cache
def find_used_taps(length: int, kernel: int, stride: int, padding: int) -> tuple[int, int, int]:
    """Which part of a kernel ever meets something else than padding, along one axis of the input.

    Args:
        length, kernel, stride, padding: of the input and the convolution, along that axis.

    Returns:
        First tap, one past the last tap, and the padding that gives the same output with these taps alone. All taps
        and `padding` where that would need unequal padding at both ends.
    """
    outputs = (length + 2 * padding - kernel) // stride + 1
    used = [tap for tap in range(kernel)
            if any(0 <= number * stride + tap - padding < length for number in range(outputs))]
    if not used:
        return 0, kernel, padding
    first, last = used[0], used[-1] + 1
    rest = padding - first
    if rest >= 0 and (length + 2 * rest - (last - first)) // stride + 1 == outputs:
        return first, last, rest
    return 0, kernel, padding


def is_low(maps: torch.Tensor) -> bool:
    """Whether a CPU computes with these maps in bfloat16."""
    return torch.is_autocast_enabled("cpu") or maps.dtype == torch.bfloat16


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` (same arguments, weights and results) with zero padding and no dilation.

    - Taps of the kernel that only see padding are left out: a map of one frame needs one third of a 3 x 3 x 3 kernel.
      In bfloat16 on a CPU this is also what makes it right: torch 2.14 leaves the weight gradients of such taps
      unwritten (whatever was in memory), and gives a wrong output for three channels and one frame.
    - It leaves those of the first or last tap unwritten, too, where a kernel that moves by one frame is longer than its
      map, such as 3 of 2 frames: in bfloat16 on a CPU these are 2-D convolutions over frames.
    - Depthwise convolutions are computed as 2-D ones over frames, one for each tap in time, where that is quicker, and
      else in float32: in bfloat16 torch takes several times as long for them as in float32, and gives wrong weight
      gradients for maps of two frames.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, in_channels, frames, height, width) -> maps (batch, out_channels, ...)."""
        weight, paddings = self.weight, []
        for axis, (length, kernel, stride, padding) in enumerate(
                zip(maps.shape[2:], self.kernel_size, self.stride, self.padding, strict=True), start=2):
            first, last, padding = find_used_taps(length, kernel, stride, padding)
            if last - first < kernel:
                weight = weight.narrow(axis, first, last - first)
            paddings.append(padding)
        if self.groups == 1 or self.groups < self.in_channels or maps.device.type != "cpu":
            if maps.device.type == "cpu" and is_low(maps) and self.stride[0] == 1 and maps.shape[2] < weight.shape[2]:
                return self._convolve_frames(maps, weight, paddings)
            return functional.conv3d(maps, weight, self.bias, self.stride, paddings, groups=self.groups)
        return self._convolve_depthwise(maps, weight, paddings)

    def _convolve_depthwise(self, maps: torch.Tensor, weight: torch.Tensor, paddings: list[int]) -> torch.Tensor:
        device = maps.device.type
        # Measured: 2-D convolutions win in bfloat16 and on few frames, but not with a stride, nor in float32 on many.
        # Not of one frame: such a map's strides fit two memory formats, and batch normalisation behind it then gives
        # wrong gradients (torch 2.14).
        if set(self.stride) == {1} and weight.shape[2] > 1 and (is_low(maps) or maps.shape[2] <= 4):
            return self._convolve_frames(maps, weight, paddings)
        with torch.autocast(device, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            result = functional.conv3d(maps.float(), weight.float(), bias, self.stride, paddings, groups=self.groups)
        return result.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else \
            result.to(maps.dtype)

    def _convolve_frames(self, maps: torch.Tensor, weight: torch.Tensor, paddings: list[int]) -> torch.Tensor:
        """Stride 1 in time: the sum over the taps in time of a 2-D convolution of all frames."""
        frames, taps, padding = maps.shape[2], weight.shape[2], paddings[0]
        outputs = frames + 2 * padding - taps + 1
        images, total = maps.transpose(1, 2), None
        for tap in range(taps):
            shift = tap - padding  # output frame t looks at input frame t + shift
            first, last = max(0, -shift), min(outputs, frames - shift)
            seen = images[:, first + shift:last + shift]
            part = functional.conv2d(seen.flatten(0, 1), weight[:, :, tap], None, self.stride[1:], paddings[1:],
                                     groups=self.groups)
            part = part.unflatten(0, seen.shape[:2])
            if last - first < outputs:
                part = functional.pad(part, (0, 0, 0, 0, 0, 0, first, outputs - last))
            total = part if total is None else total + part
        total = total.transpose(1, 2)
        return total if self.bias is None else total + self.bias.to(total.dtype).view(-1, 1, 1, 1)
