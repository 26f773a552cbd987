"""A 3-D convolution that equals torch's, with right gradients in bfloat16 and quicker where maps are thin or deep."""

import functools

import torch
from torch import nn
from torch.autograd.function import once_differentiable
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
        if torch.is_autocast_enabled(maps.device.type):
            dtype = torch.get_autocast_dtype(maps.device.type)
            maps, weight = maps.to(dtype), weight.to(dtype)
        if torch.is_grad_enabled() and (maps.requires_grad or weight.requires_grad):
            total = FrameConvolution.apply(maps, weight, self.stride[1:], paddings, self.groups)
        else:
            total = convolve_frames(maps, weight, self.stride[1:], paddings, self.groups)
        return total if self.bias is None else total + self.bias.to(total.dtype).view(-1, 1, 1, 1)


def convolve_frames(maps: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int], paddings: list[int],
                    groups: int) -> torch.Tensor:
    """A 3-D convolution of stride 1 in time as 2-D ones of frames, one for each tap in time.

    Args:
        maps: (batch, in_channels, frames, height, width).
        weight: (out_channels, in_channels / groups, taps, height, width) of the kernel; of the maps' dtype.
        stride: of height and width.
        paddings: of frames, height and width.
        groups: of channels.

    Returns:
        Maps (batch, out_channels, ...).
    """
    total = None
    for tap, seen, made, outputs in _place_taps(maps.shape[2], weight.shape[2], paddings[0]):
        part = functional.conv2d(_flatten(maps, seen), weight[:, :, tap], None, stride, paddings[1:], groups=groups)
        part = part.unflatten(0, (maps.shape[0], -1)).transpose(1, 2)
        if total is None:
            total = maps.new_zeros(maps.shape[0], part.shape[1], outputs, *part.shape[3:])
            total = total.contiguous(memory_format=torch.channels_last_3d) if _is_last(maps) else total
        total[:, :, made] += part
    return total


class FrameConvolution(torch.autograd.Function):
    """`convolve_frames` with its gradients, made in place and in the memory order of the maps."""

    @staticmethod
    def forward(ctx, maps, weight, stride, paddings, groups):
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.paddings, ctx.groups = stride, paddings, groups
        return convolve_frames(maps, weight, stride, paddings, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        maps, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        of_maps, of_weight = (torch.zeros_like(tensor) if want else None
                              for tensor, want in zip((maps, weight), wanted, strict=True))
        for tap, seen, made, _ in _place_taps(maps.shape[2], weight.shape[2], ctx.paddings[0]):
            of_seen, of_tap, _ = torch.ops.aten.convolution_backward(
                _flatten(gradient, made), _flatten(maps, seen), weight[:, :, tap], None, ctx.stride, ctx.paddings[1:],
                [1, 1], False, [0, 0], ctx.groups, [*wanted, False])
            if wanted[0]:
                of_maps[:, :, seen] += of_seen.unflatten(0, (maps.shape[0], -1)).transpose(1, 2)
            if wanted[1]:
                of_weight[:, :, tap] = of_tap
        return of_maps, of_weight, None, None, None


class SameOrder(torch.autograd.Function):
    """See `keep_order`."""

    @staticmethod
    def forward(ctx, maps):
        ctx.last = _is_last(maps)
        return maps.view_as(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient.contiguous(memory_format=torch.channels_last_3d) if ctx.last else gradient


def keep_order(maps: torch.Tensor) -> torch.Tensor:
    """Maps whose gradient comes in their own memory order.

    That of a part of some maps, cut out by channels, has gaps, with which what comes next takes ten times as long.
    """
    return SameOrder.apply(maps) if torch.is_grad_enabled() and maps.requires_grad else maps


def _place_taps(frames: int, taps: int, padding: int):
    """For each tap in time: its number, the frames that it sees, the output frames it adds to, and how many there are.

    Output frame t looks at input frame t + tap - padding.
    """
    outputs = frames + 2 * padding - taps + 1
    for tap in range(taps):
        shift = tap - padding
        first, last = max(0, -shift), min(outputs, frames - shift)
        yield tap, slice(first + shift, last + shift), slice(first, last), outputs


def _flatten(maps: torch.Tensor, frames: slice) -> torch.Tensor:
    """Some frames of maps, as pictures (batch * frames, channels, height, width)."""
    return maps.transpose(1, 2)[:, frames].flatten(0, 1)


def _is_last(maps: torch.Tensor) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last_3d)
