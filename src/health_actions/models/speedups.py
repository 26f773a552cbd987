"""Faster 3-D CNNs on CPUs: `speed_up` changes how a finished network computes, not its weights or its results.

It also makes bfloat16 right. torch 2.14 on a CPU leaves the weight gradients of kernel taps that only see padding
unwritten (whatever was in memory), and those of the first or last tap where a kernel that moves by one frame is longer
than its map; it gives wrong gradients for depthwise kernels on maps of two frames.
"""

import functools
import itertools
import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from health_actions.models.shufflenetv2 import ChannelShuffle

FEW = 40  # positions (frames x height x width) of a map up to which a matrix product is faster than a convolution
FEW_POINTWISE = 100  # the same for kernels of 1 x 1 x 1 in bfloat16; in float32 a matrix product is always faster


def speed_up(network: nn.Module, frames: int, size: int) -> nn.Module:
    """Let the 3-D layers of a network compute faster on a CPU, in place; results stay the same up to rounding.

    Names, shapes and values of parameters and buffers stay as they are. On other devices, and for convolutions with
    dilation or other padding than zeros, nothing changes.

    Args:
        network: any module; its `nn.Conv3d`, `nn.BatchNorm3d` and `ChannelShuffle` layers are changed.
    """
    for layer in network.modules():
        if type(layer) is ChannelShuffle:
            layer.__class__ = FastShuffle
        elif type(layer) is nn.MaxPool3d:
            layer.__class__ = FastMaxPool3d
        elif type(layer) is nn.BatchNorm3d:
            layer.__class__ = FastBatchNorm3d
        elif isinstance(layer, nn.Conv3d) and type(layer).forward is nn.Conv3d.forward \
                and layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and set(layer.dilation) == {1}:
            layer.__class__ = FastConv3d
    return network


@functools.cache
def find_used_taps(length: int, kernel: int, stride: int, padding: int) -> tuple[int, int, int]:
    """The part of a kernel that meets more than padding, along one axis of the input.

    Returns:
        First tap, one past the last tap, and the padding that gives the same output with these taps alone; all taps
        and `padding` where that would need unequal padding at both ends.
    """
    outputs = (length + 2 * padding - kernel) // stride + 1
    used = [tap for tap in range(kernel)
            if any(0 <= number * stride + tap - padding < length for number in range(outputs))]
    if used and padding >= used[0]:
        first, last, rest = used[0], used[-1] + 1, padding - used[0]
        if (length + 2 * rest - (last - first)) // stride + 1 == outputs:
            return first, last, rest
    return 0, kernel, padding


@functools.cache
def plan_convolution(lengths: tuple, kernel: tuple, stride: tuple, paddings: tuple) -> tuple:
    """For maps of some frames, height and width: the used part of a kernel, its padding, and what comes out.

    Returns:
        Slices of the kernel, its paddings, and frames, height and width that come out, each along the three axes.
    """
    axes = [find_used_taps(*axis) for axis in zip(lengths, kernel, stride, paddings, strict=True)]
    outputs = [(length + 2 * padding - (last - first)) // step + 1
               for (first, last, padding), length, step in zip(axes, lengths, stride, strict=True)]
    return tuple(slice(first, last) for first, last, _ in axes), tuple(padding for *_, padding in axes), tuple(outputs)


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
        plan = plan_convolution(tuple(maps.shape[2:]), self.kernel_size, self.stride, self.padding)
        taps, paddings, outputs = plan
        if self.groups == 1 and self.kernel_size == (1, 1, 1) and not any(paddings) and (
                dtype != torch.bfloat16 or math.prod(outputs) <= FEW_POINTWISE):
            seen = maps.movedim(1, -1)[:, ::self.stride[0], ::self.stride[1], ::self.stride[2]]
            return functional.linear(seen, self.weight.flatten(1), self.bias).movedim(-1, 1)
        if self.groups == 1 and math.prod(outputs) <= FEW:
            return MatrixConvolution.apply(maps, self.weight, self.bias, self.stride, plan).movedim(-1, 1)
        result = None
        if 1 < self.groups == self.in_channels == self.out_channels:
            result = DepthwiseConvolution.apply(maps, self.weight, self.stride, plan)
        elif self.stride[0] == 1 and maps.shape[2] < taps[0].stop - taps[0].start:
            result = FrameConvolution.apply(maps, self.weight, self.stride, plan, self.groups).movedim(-1, 1)
        if result is not None:
            return result if self.bias is None else result + self.bias.to(dtype).view(-1, 1, 1, 1)
        weight, groups = self.weight[:, :, *taps], self.groups
        if self.in_channels <= 4 and self.kernel_size[2] > 4 and dtype == torch.bfloat16 and not maps.requires_grad:
            # A first layer of few channels: what the kernel sees along the width becomes channels.
            clips = functional.pad(maps.movedim(1, -1), (0, 0, paddings[2], paddings[2]))
            clips = clips.unfold(3, weight.shape[4], self.stride[2]).transpose(-1, -2).flatten(-2).movedim(-1, 1)
            weight = weight.permute(0, 4, 1, 2, 3).flatten(1, 2).unsqueeze(-1)
            clips, weight = (each.contiguous(memory_format=torch.channels_last_3d) for each in (clips, weight))
            return functional.conv3d(clips, weight, self.bias, (*self.stride[:2], 1), (*paddings[:2], 0))
        if groups > 1 and groups % 2 == 0 and weight.shape[1] < 8:
            weight, groups = _join_groups(weight, groups), groups // 2
        return functional.conv3d(maps, weight, self.bias, self.stride, paddings, groups=groups)


def _join_groups(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """The same convolution with half the groups, each twice as wide and half zeros: faster for very narrow groups."""
    pairs = weight.view(groups // 2, 2, -1, 1, *weight.shape[1:])
    return (pairs * torch.eye(2, dtype=weight.dtype).view(1, 2, 1, 2, 1, 1, 1, 1)).reshape(
        len(weight), 2 * weight.shape[1], *weight.shape[2:])


class MatrixConvolution(torch.autograd.Function):
    """A 3-D convolution as one matrix product: of all that the kernel sees at each position, and the weights.

    Args:
        maps: (batch, in_channels, frames, height, width), channels last.
        weight: (out_channels, in_channels, frames, height, width) of the kernel; it and `bias` may be float32 where
            maps are bfloat16.
        stride: of frames, height and width.
        plan: see `plan_convolution`.
    """

    @staticmethod
    def forward(ctx, maps, weight, bias, stride, plan):
        taps, paddings, outputs = plan
        used = weight[:, :, *taps].movedim(1, -1)
        rows = _take_rows(maps, used.shape[1:4], stride, paddings, outputs)
        matrix = torch.empty(used.shape, dtype=maps.dtype).copy_(used).flatten(1)  # cut and cast in one pass
        ctx.save_for_backward(rows, matrix, weight)
        ctx.geometry = maps.shape, used.shape, stride, *plan
        result = rows.new_empty(len(maps), *outputs, len(weight))  # a view could not be changed in place
        if bias is None:
            torch.mm(rows, matrix.t(), out=result.view(-1, len(weight)))
        else:
            torch.addmm(bias.to(maps.dtype), rows, matrix.t(), out=result.view(-1, len(weight)))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (rows, matrix, weight), (shape, used, stride, taps, paddings, outputs) = ctx.saved_tensors, ctx.geometry
        gradient = gradient.reshape(len(rows), -1)
        of_maps = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_maps = _return_rows(gradient @ matrix, shape, used[1:4], stride, paddings, outputs)
        if ctx.needs_input_grad[1]:
            of_weight = torch.zeros_like(weight)
            of_weight[:, :, *taps] = (gradient.t() @ rows).view(used).movedim(-1, 1)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0).to(weight.dtype)
        return of_maps, of_weight, of_bias, None, None


def _take_rows(maps, kernel, stride, paddings, outputs) -> torch.Tensor:
    """Maps -> (batch * positions, taps * channels): what the kernel sees at each position of the output."""
    maps = maps.movedim(1, -1)
    if any(paddings):
        maps = functional.pad(maps, (0, 0, *(padding for padding in reversed(paddings) for _ in range(2))))
    for axis, (taps, step) in enumerate(zip(kernel, stride, strict=True), start=1):
        maps = maps.unfold(axis, taps, step)
    return maps.permute(0, 1, 2, 3, 5, 6, 7, 4).reshape(len(maps) * math.prod(outputs), -1)


def _return_rows(rows, shape, kernel, stride, paddings, outputs) -> torch.Tensor:
    """The gradient of `_take_rows`: each value goes back to where it was seen."""
    batch, channels, *lengths = shape
    if math.prod(kernel) == 1 and set(stride) == {1}:
        return rows.view(batch, *lengths, channels).movedim(-1, 1)
    rows = rows.view(batch, *outputs, *kernel, channels)
    padded = rows.new_zeros(batch, *(length + 2 * padding for length, padding in zip(lengths, paddings)), channels)
    for tap in itertools.product(*map(range, kernel)):
        seen = (slice(first, first + (count - 1) * step + 1, step) for first, count, step in zip(tap, outputs, stride))
        padded[:, *seen] += rows[:, :, :, :, *tap]
    inner = (slice(padding, padding + length) for length, padding in zip(lengths, paddings))
    return padded[:, *inner].contiguous().movedim(-1, 1)


class DepthwiseConvolution(torch.autograd.Function):
    """A 3-D convolution of each channel alone: float32, and bfloat16 where that is faster.

    Args:
        maps, weight, stride, plan: see `MatrixConvolution`.
    """

    @staticmethod
    def forward(ctx, maps, weight, stride, plan):
        taps, paddings, _ = plan
        ctx.save_for_backward(maps, weight)
        ctx.geometry = stride, plan
        kernel = weight[:, :, *taps].float()
        return functional.conv3d(maps.float(), kernel, None, stride, paddings, groups=len(weight)).to(maps.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (maps, weight), (stride, (taps, paddings, outputs)) = ctx.saved_tensors, ctx.geometry
        kernel = weight[:, :, *taps].to(maps.dtype)
        clips, gradient = maps.movedim(1, -1), gradient.movedim(1, -1).contiguous()
        phases = [clips[:, first::stride[0]].contiguous() for first in range(stride[0])]
        of_clips, of_weight = torch.zeros_like(clips), torch.zeros_like(weight)
        # Faster than torch's own: the input's gradient as a convolution of stride 1 with the kernel turned round.
        around = [size - 1 - padding for size, padding in zip(kernel.shape[3:], paddings[1:], strict=True)]
        spread = _spread(gradient, [side - size + 1 + 2 * padding for side, size, padding in zip(
            clips.shape[2:4], kernel.shape[3:], paddings[1:], strict=True)], stride[1:])
        for tap, phase, seen, made in place_taps(clips.shape[1], kernel.shape[2], stride[0], paddings[0], outputs[0]):
            of_seen = functional.conv2d(spread, kernel[:, :, tap].flip(2, 3), None, 1, around, groups=len(weight))
            of_clips[:, phase::stride[0]][:, seen] += of_seen.movedim(1, -1).unflatten(0, (len(clips), -1))[:, made]
            of_weight[:, :, *taps].select(2, tap).copy_(torch.ops.aten.convolution_backward(
                *_pair(phases[phase], gradient, seen, made), kernel[:, :, tap], None, stride[1:], paddings[1:], [1, 1],
                False, [0, 0], len(weight), [False, True, False])[1])
        return of_clips.movedim(-1, 1), of_weight, None, None


def _spread(gradient, sides, stride) -> torch.Tensor:
    """Pictures of a gradient, with zeros between their values where a stride left some out."""
    if set(stride) == {1}:
        return _flatten(gradient)
    spread = gradient.new_zeros(*gradient.shape[:2], *sides, gradient.shape[-1])
    spread[:, :, ::stride[0], ::stride[1]] = gradient
    return _flatten(spread)


def _pair(clips, gradient, seen, made) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of outputs, and the pictures that these saw."""
    shift = seen.start - made.start
    if clips.shape[1] != gradient.shape[1]:
        return _flatten(gradient[:, made]), _flatten(clips[:, seen])
    if shift:  # one copy less: all frames, but what would meet another clip's counts nothing
        gradient = gradient.clone()
        gradient[:, made.stop:] = 0
        gradient[:, :made.start] = 0
    pictures, gradient = _flatten(clips), _flatten(gradient)
    return gradient[max(0, -shift):len(gradient) - max(0, shift)], pictures[max(0, shift):len(pictures) + min(0, shift)]


class FrameConvolution(torch.autograd.Function):
    """A 3-D convolution that moves by one frame as 2-D ones of all frames, one for each tap in time, summed.

    Args:
        maps, weight, stride, plan: see `MatrixConvolution`.
        groups: of channels.
    """

    @staticmethod
    def forward(ctx, maps, weight, stride, plan, groups):
        taps, paddings, outputs = plan
        kernel = weight[:, :, *taps].to(maps.dtype)
        clips = maps.movedim(1, -1)
        result = maps.new_zeros(len(maps), *outputs, len(weight))
        for tap, _, seen, made in place_taps(maps.shape[2], kernel.shape[2], 1, paddings[0], outputs[0]):
            part = functional.conv2d(_flatten(clips[:, seen]), kernel[:, :, tap], None, stride[1:], paddings[1:],
                                     groups=groups)
            result[:, made] += part.movedim(1, -1).unflatten(0, (len(maps), -1))
        ctx.save_for_backward(clips, weight, kernel)
        ctx.geometry = stride, plan, groups
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (clips, weight, kernel), (stride, (taps, paddings, outputs), groups) = ctx.saved_tensors, ctx.geometry
        of_clips, of_weight = torch.zeros_like(clips), torch.zeros_like(weight)
        for tap, _, seen, made in place_taps(clips.shape[1], kernel.shape[2], 1, paddings[0], outputs[0]):
            of_seen, of_tap, _ = torch.ops.aten.convolution_backward(
                _flatten(gradient[:, made]), _flatten(clips[:, seen]), kernel[:, :, tap], None, stride[1:],
                paddings[1:], [1, 1], False, [0, 0], groups, [True, True, False])
            of_weight[:, :, *taps].select(2, tap).copy_(of_tap)
            of_clips[:, seen] += of_seen.movedim(1, -1).unflatten(0, (len(clips), -1))
        return of_clips.movedim(-1, 1), of_weight, None, None, None


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


def _flatten(clips) -> torch.Tensor:
    """Clips (batch, frames, height, width, channels) -> pictures (batch * frames, channels, height, width)."""
    return clips.flatten(0, 1).movedim(-1, 1)


class FastMaxPool3d(nn.MaxPool3d):
    """`nn.MaxPool3d` in the precision of its maps, where autocast would bring them to float32 and back."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, frames, height, width) -> maps."""
        with torch.autocast(maps.device.type, enabled=False):
            return super().forward(maps)


class FastBatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` that copies a gradient with gaps, as joined channels have, before it takes ten times as long."""

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
    """Two maps' channels in turn, channels last, with gradients without gaps."""

    @staticmethod
    def forward(ctx, first, second):
        return torch.stack([first.movedim(1, -1), second.movedim(1, -1)], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return tuple(part.contiguous().movedim(-1, 1) for part in gradient.unbind(-1))
