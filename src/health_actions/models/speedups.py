"""Faster 3-D CNNs on CPUs: `speed_up` changes how a finished network computes, not its weights or its results.

It also makes bfloat16 right. torch 2.14 on a CPU leaves the weight gradients of kernel taps that only see padding
unwritten (whatever was in memory), and those of the first or last tap where a kernel that moves by one frame is longer
than its map; it gives wrong gradients for depthwise kernels on maps of two frames.
"""

import functools
import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from health_actions.models.shufflenetv2 import ChannelShuffle

# Positions (frames x height x width) of a map up to which one matrix product was faster than torch's convolution, and
# the same for kernels of 1 x 1 x 1 in bfloat16; for these a matrix product in float32 is always faster.
FEW, FEW_POINTWISE = 40, 100


def speed_up(network: nn.Module) -> nn.Module:
    """Let the 3-D layers of a network compute faster on a CPU, in place; results stay the same up to rounding.

    Names, shapes and values of parameters and buffers stay. Convolutions with dilation or other padding than zeros
    stay as they are, and so does everything on other devices.

    Args:
        network: any module; its `nn.Conv3d`, `nn.BatchNorm3d`, `nn.MaxPool3d` and `ChannelShuffle` get faster classes.
    """
    faster = {nn.BatchNorm3d: FastBatchNorm3d, nn.MaxPool3d: FastMaxPool3d, ChannelShuffle: FastShuffle}
    for layer in network.modules():
        if type(layer) in faster:
            layer.__class__ = faster[type(layer)]
        elif isinstance(layer, nn.Conv3d) and type(layer).forward is nn.Conv3d.forward \
                and layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and set(layer.dilation) == {1}:
            layer.__class__ = FastConv3d
    return network


def find_used_taps(length: int, kernel: int, stride: int, padding: int) -> tuple[slice, int]:
    """The part of a kernel that meets more than padding, along one axis of the input.

    Returns:
        The taps, and the padding that gives the same output with these alone; all taps and `padding` where that would
        need unequal padding at both ends.
    """
    outputs = (length + 2 * padding - kernel) // stride + 1
    used = [tap for tap in range(kernel)
            if any(0 <= number * stride + tap - padding < length for number in range(outputs))]
    if used and padding >= used[0]:
        taken, rest = used[-1] + 1 - used[0], padding - used[0]
        if (length + 2 * rest - taken) // stride + 1 == outputs:
            return slice(used[0], used[-1] + 1), rest
    return slice(0, kernel), padding


@functools.cache
def plan_convolution(lengths: tuple, kernel: tuple, stride: tuple, paddings: tuple) -> tuple[tuple, tuple, tuple]:
    """For maps of some frames, height and width: used taps, their paddings and the output's lengths, along each."""
    taps, rests = zip(*map(find_used_taps, lengths, kernel, stride, paddings), strict=True)
    return taps, rests, tuple((length + 2 * padding - size) // step + 1 for length, padding, size, step in zip(
        lengths, paddings, kernel, stride, strict=True))


@functools.cache
def place_taps(frames: int, taps: int, step: int, padding: int, outputs: int) -> list[tuple[int, int, slice, slice]]:
    """For each tap in time: its number, the first of every step-th frame, which of these it sees, for which outputs.

    Output frame t sees frame t * step + tap - padding.
    """
    places = []
    for tap in range(taps):
        shift, phase = divmod(tap - padding, step)
        first, last = max(0, -shift), min(outputs, -(-(frames - phase) // step) - shift)
        if first < last:
            places.append((tap, phase, slice(first + shift, last + shift), slice(first, last)))
    return places


class FastConv3d(nn.Conv3d):
    """`nn.Conv3d` (zero padding, no dilation) that computes on CPUs what its kernel sees, in the fastest measured way.

    Maps come out with the channels of a pixel side by side (channels last), and are brought to that order if needed.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, in_channels, frames, height, width) -> maps (batch, out_channels, ...)."""
        if maps.device.type != "cpu":
            return super().forward(maps)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else maps.dtype
        maps = maps.to(dtype).contiguous(memory_format=torch.channels_last_3d)
        clips, stride, groups = maps.movedim(1, -1), self.stride, self.groups
        taps, paddings, outputs = plan_convolution(tuple(maps.shape[2:]), self.kernel_size, stride, self.padding)
        bias = None if self.bias is None else self.bias.to(dtype)
        if 1 < groups == self.in_channels == self.out_channels:
            result = DepthwiseConvolution.apply(maps, self.weight, stride, taps, paddings)
            return result if bias is None else result + bias.view(-1, 1, 1, 1)
        weight = self.weight[:, :, *taps].to(dtype)
        kernel = weight.shape[2:]
        pointwise = math.prod(kernel) == 1 and not any(paddings)
        few = FEW if not pointwise else FEW_POINTWISE if dtype == torch.bfloat16 else math.inf
        if groups == 1 and math.prod(outputs) <= few:
            rows = clips[:, ::stride[0], ::stride[1], ::stride[2]]  # what the kernel sees at each position
            if not pointwise:
                rows = functional.pad(clips, [0, 0, *(end for size in reversed(paddings) for end in (size, size))])
                for axis in range(3):
                    rows = rows.unfold(axis + 1, kernel[axis], stride[axis])
                rows = rows.permute(0, 1, 2, 3, 5, 6, 7, 4).flatten(4)
            # One matrix: of bfloat16 rows with gaps, torch copies the weights for each clip when it needs no gradients.
            products = functional.linear(rows.flatten(0, 3), weight.movedim(1, -1).flatten(1), bias)
            return products.unflatten(0, rows.shape[:4]).movedim(-1, 1)
        if stride[0] == 1 and maps.shape[2] < kernel[0]:  # 2-D convolutions of frames, one for each tap in time
            result = 0 if bias is None else bias
            for tap, _, seen, made in place_taps(maps.shape[2], kernel[0], 1, paddings[0], outputs[0]):
                part = functional.conv2d(_flatten(clips[:, seen]), weight[:, :, tap], None, stride[1:], paddings[1:],
                                         groups=groups).movedim(1, -1).unflatten(0, (len(maps), -1))
                result = result + functional.pad(part, [0] * 6 + [made.start, outputs[0] - made.stop])
            return result.movedim(-1, 1)
        if self.in_channels < 5 and kernel[2] > 4 and dtype == torch.bfloat16 and not maps.requires_grad:
            # A first layer: what the kernel sees along the width becomes channels. AMX multiplies 32 values at a time.
            clips = functional.pad(clips, [0, 0, paddings[2], paddings[2]]).unfold(3, kernel[2], stride[2])
            maps = clips.transpose(-1, -2).flatten(-2).movedim(-1, 1)
            weight = weight.permute(0, 4, 1, 2, 3).flatten(1, 2).unsqueeze(-1)
            weight = weight.contiguous(memory_format=torch.channels_last_3d)  # in any other order a slow path is taken
            stride, paddings = (*stride[:2], 1), (*paddings[:2], 0)
        if groups % 2 == 0 and weight.shape[1] < 8:  # half the groups, twice as wide and half zeros, are faster
            groups //= 2
            own = torch.eye(2, dtype=dtype).view(2, 1, 2, 1, 1, 1, 1)
            weight = (weight.view(groups, 2, -1, 1, *weight.shape[1:]) * own).flatten(3, 4).flatten(0, 2)
        return functional.conv3d(maps, weight, bias, stride, paddings, groups=groups)


class DepthwiseConvolution(torch.autograd.Function):
    """A 3-D convolution of each channel alone.

    torch's own in bfloat16 takes several times as long as in float32, and its gradients take ten times as long as those
    of 2-D convolutions of frames, one for each tap in time.
    """

    @staticmethod
    def forward(ctx, maps, weight, stride, taps, paddings):
        ctx.save_for_backward(maps, weight)
        ctx.geometry = stride, taps, paddings
        kernel = weight[:, :, *taps].float()
        return functional.conv3d(maps.float(), kernel, None, stride, paddings, groups=len(weight)).to(maps.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (maps, weight), (stride, taps, paddings) = ctx.saved_tensors, ctx.geometry
        kernel = weight[:, :, *taps].to(maps.dtype)
        clips, gradient = maps.movedim(1, -1), gradient.movedim(1, -1).contiguous()
        phases = [clips[:, first::stride[0]].contiguous() for first in range(stride[0])]
        of_clips, of_weight = torch.zeros_like(clips), torch.zeros_like(weight)
        # The input's gradient is a convolution of stride 1 with the kernel turned round.
        around = [size - 1 - padding for size, padding in zip(kernel.shape[3:], paddings[1:], strict=True)]
        spread = _spread(gradient, [side + padding - rest for side, padding, rest in zip(
            clips.shape[2:4], paddings[1:], around, strict=True)], stride[1:])
        for tap, phase, seen, made in place_taps(
                clips.shape[1], kernel.shape[2], stride[0], paddings[0], gradient.shape[1]):
            of_seen = functional.conv2d(spread, kernel[:, :, tap].flip(2, 3), None, 1, around, groups=len(weight))
            of_clips[:, phase::stride[0]][:, seen] += of_seen.movedim(1, -1).unflatten(0, (len(clips), -1))[:, made]
            of_weight[:, :, *taps].select(2, tap).copy_(torch.ops.aten.convolution_backward(
                *_pair(gradient, phases[phase], made, seen), kernel[:, :, tap], None, stride[1:], paddings[1:], [1, 1],
                False, [0, 0], len(weight), [False, True, False])[1])
        return of_clips.movedim(-1, 1), of_weight, None, None, None


def _flatten(clips: torch.Tensor) -> torch.Tensor:
    """Clips (batch, frames, height, width, channels) -> pictures (batch * frames, channels, height, width)."""
    return clips.flatten(0, 1).movedim(-1, 1)


def _spread(clips: torch.Tensor, sides: list[int], stride: tuple[int, int]) -> torch.Tensor:
    """Pictures of some height and width, with the clips' values at every stride-th place and zeros between them."""
    if set(stride) == {1}:
        return _flatten(clips)
    spread = clips.new_zeros(*clips.shape[:2], *sides, clips.shape[-1])
    spread[:, :, ::stride[0], ::stride[1]] = clips
    return _flatten(spread)


def _pair(gradient: torch.Tensor, clips: torch.Tensor, made: slice, seen: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of some output frames, and the frames that these saw, both as pictures."""
    shift = seen.start - made.start
    if clips.shape[1] != gradient.shape[1]:
        return _flatten(gradient[:, made]), _flatten(clips[:, seen])
    if shift:  # all frames, moved: one copy less. Gradients that would meet another clip's frames become zeros.
        gradient = gradient.clone()
        gradient[:, made.stop:] = 0
        gradient[:, :made.start] = 0
    gradient, clips, count = _flatten(gradient), _flatten(clips), len(gradient) * gradient.shape[1]
    return gradient[max(0, -shift):count - max(0, shift)], clips[max(0, shift):count + min(0, shift)]


class FastMaxPool3d(nn.MaxPool3d):
    """`nn.MaxPool3d` in the precision of its maps: autocast would bring them to float32 and back."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> maps."""
        with torch.autocast(maps.device.type, enabled=False):
            return super().forward(maps)


class FastBatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` for gradients with gaps in memory, as joined channels give: it would take ten times as long."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> maps."""
        result = super().forward(maps)
        if result.requires_grad and result.device.type == "cpu":
            result.register_hook(_fill_gaps)
        return result


def _fill_gaps(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last_3d)


class FastShuffle(ChannelShuffle):
    """`ChannelShuffle` that keeps the channels of a pixel side by side."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Two maps (batch, channels, frames, height, width) -> maps (batch, 2 * channels, ...)."""
        return Interleaving.apply(first, second).flatten(-2).movedim(-1, 1)


class Interleaving(torch.autograd.Function):
    """Two maps (batch, channels, ...) -> (batch, ..., channels, 2), with gradients that have no gaps in memory."""

    @staticmethod
    def forward(ctx, first, second):
        return torch.stack([first.movedim(1, -1), second.movedim(1, -1)], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return tuple(part.contiguous().movedim(-1, 1) for part in gradient.unbind(-1))
