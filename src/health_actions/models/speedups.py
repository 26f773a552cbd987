"""Faster 3-D CNNs on CPUs: `speed_up` changes how a finished network computes, not its weights or its results.

It also makes bfloat16 right. torch 2.14 on a CPU leaves the weight gradients of kernel taps that only see padding
unwritten, and those of the first or last tap where a kernel that moves by one frame is longer than its map; it gives
wrong gradients for depthwise kernels on maps of two frames.
"""

import functools

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from health_actions.models.shufflenetv2 import ChannelShuffle, ShuffleUnit
from health_actions.models.squeezenet import FireModule


def speed_up(network: nn.Module, frames: int, size: int) -> nn.Module:
    """Let a network's 3-D layers compute faster on a CPU, in place; names, shapes and results stay (up to rounding).

    - Weights and maps keep the channels of a pixel side by side.
    - Kernel taps that only see padding are left out: a map of one frame needs a third of a 3 x 3 x 3 kernel.
    - Depthwise kernels, and kernels longer than their map in bfloat16, become 2-D convolutions over frames.
    - Gradients of joined channels are copied to the order of their maps: with gaps, the next layer takes ten times
      as long.

    Args:
        network: any model of `build_model`; one without 3-D convolutions is returned as it is.
        frames, size: of the clips, (batch, 3, frames, size, size).
    """
    layers = [layer for layer in network.modules() if type(layer) is nn.Conv3d and layer.padding_mode == "zeros"
              and not isinstance(layer.padding, str) and set(layer.dilation) == {1}]
    if not layers:
        return network
    for layer in layers:
        layer.__class__ = FastConv3d
    for module in list(network.modules()):
        if isinstance(module, ChannelShuffle):
            module.__class__ = FastShuffle
        elif isinstance(module, ShuffleUnit):
            for branch in filter(None, (module.banch1, module.banch2)):
                branch.register_forward_hook(_keep_order)
        elif isinstance(module, FireModule):
            module.expand1x1_bn.register_forward_hook(_keep_order)
            module.expand3x3_bn.register_forward_hook(_keep_order)
    network.register_forward_pre_hook(_arrange)
    return network.to(memory_format=torch.channels_last_3d)


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


class FastConv3d(nn.Conv3d):
    """`nn.Conv3d` (zero padding, no dilation) as `speed_up` lets it compute."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (batch, in_channels, frames, height, width) -> maps (batch, out_channels, ...)."""
        if maps.device.type != "cpu":
            return super().forward(maps)
        weight, paddings = self.weight, []
        for axis, (length, kernel, stride, padding) in enumerate(
                zip(maps.shape[2:], self.kernel_size, self.stride, self.padding, strict=True), start=2):
            first, last, padding = find_used_taps(length, kernel, stride, padding)
            weight = weight.narrow(axis, first, last - first) if last - first < kernel else weight
            paddings.append(padding)
        low = torch.is_autocast_enabled("cpu") or maps.dtype == torch.bfloat16
        if self.groups == 1 or self.groups < self.in_channels:
            by_frames = low and self.stride[0] == 1 and maps.shape[2] < weight.shape[2]
        else:
            # Measured: faster in bfloat16 and on few frames, but not with a stride. Never of one frame: such a map's
            # strides fit two memory formats, and batch normalisation then gives wrong gradients (torch 2.14).
            by_frames = set(self.stride) == {1} and weight.shape[2] > 1 and (low or maps.shape[2] <= 4)
            if not by_frames:  # in bfloat16 depthwise kernels take several times as long as in float32
                with torch.autocast("cpu", enabled=False):
                    bias = None if self.bias is None else self.bias.float()
                    result = functional.conv3d(maps.float(), weight.float(), bias, self.stride, paddings,
                                               groups=self.groups)
                return result.to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else maps.dtype)
        if not by_frames:
            return functional.conv3d(maps, weight, self.bias, self.stride, paddings, groups=self.groups)
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            maps, weight = maps.to(dtype), weight.to(dtype)
        total = FrameConvolution.apply(maps, weight, self.stride[1:], paddings, self.groups)
        return total if self.bias is None else total + self.bias.to(total.dtype).view(-1, 1, 1, 1)


class FrameConvolution(torch.autograd.Function):
    """A 3-D convolution of stride 1 in time as 2-D ones of all frames, one for each tap in time, summed."""

    @staticmethod
    def forward(ctx, maps, weight, stride, paddings, groups):
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.paddings, ctx.groups = stride, paddings, groups
        total = None
        for tap, seen, made, outputs in _place_taps(maps.shape[2], weight.shape[2], paddings[0]):
            part = functional.conv2d(_flatten(maps, seen), weight[:, :, tap], None, stride, paddings[1:], groups=groups)
            part = part.unflatten(0, (maps.shape[0], -1)).transpose(1, 2)
            if total is None:
                total = maps.new_zeros(maps.shape[0], part.shape[1], outputs, *part.shape[3:])
                total = total.contiguous(memory_format=torch.channels_last_3d) if _is_last(maps) else total
            total[:, :, made] += part
        return total

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


class FastShuffle(ChannelShuffle):
    """`ChannelShuffle` without a copy to another memory format."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Two maps (batch, channels, frames, height, width) -> maps (batch, 2 * channels, ...)."""
        return torch.stack([first.movedim(1, -1), second.movedim(1, -1)], dim=-1).flatten(-2).movedim(-1, 1)


class SameOrder(torch.autograd.Function):
    """Maps as they are; their gradient is copied to their memory format."""

    @staticmethod
    def forward(ctx, maps):
        ctx.last = _is_last(maps)
        return maps.view_as(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient.contiguous(memory_format=torch.channels_last_3d) if ctx.last else gradient


def _keep_order(module: nn.Module, inputs: tuple, maps: torch.Tensor) -> torch.Tensor:
    return SameOrder.apply(maps) if torch.is_grad_enabled() and maps.requires_grad else maps


def _arrange(network: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].contiguous(memory_format=torch.channels_last_3d)


def _place_taps(frames: int, taps: int, padding: int):
    """For each tap in time: its number, the frames that it sees, the output frames it adds to, and how many there are.

    Output frame t sees input frame t + tap - padding.
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
