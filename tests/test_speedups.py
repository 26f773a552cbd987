"""`speed_up` changes how networks compute on a CPU, not what."""

import copy

import pytest
import torch
from conftest import mark_slow
from torch import nn
from torch.nn.functional import cross_entropy

from health_actions.learning.precision import choose_precision
from health_actions.models import build_model
from health_actions.models.shufflenetv2 import ChannelShuffle
from health_actions.models.speedups import find_used_taps, speed_up

SMALL = {"num_classes": 3, "frames": 8, "size": 32}
STUDY_B = ["c3d", "resnet18", "resnet50", "resnext101", "mobilenetv2", "shufflenetv2", "squeezenet"]


def pair(*layers: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The same layers as torch computes them, and sped up."""
    plain = nn.Sequential(*layers)
    return plain, speed_up(copy.deepcopy(plain))


def spoil_memory() -> None:
    """Leave nan in freed memory: gradients that torch leaves unwritten then have it."""
    garbage = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (1000, 10_000, 100_000)]
    del garbage


def compute(network: nn.Module, clips: torch.Tensor, low: bool = False) -> list[torch.Tensor]:
    """Result, gradient of the input, gradients of the parameters."""
    maps = clips.clone().requires_grad_()
    network.zero_grad()
    spoil_memory()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        result = network(maps)
    weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
    (result.float() * weights).sum().backward()
    return [result.float().detach(), maps.grad, *(parameter.grad.clone() for parameter in network.parameters())]


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [
    (8, 16, 1), (3, 8, 1), (16, 16, 4), (16, 16, 16), (8, 16, 8), (32, 32, 1), (64, 64, 32)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, (1, 2, 2)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (1, 2, 2), (2, 1, 1), (2, 7, 7), (3, 2, 5), (8, 10, 10)])
def test_convolutions_equal_torchs_in_both_precisions(inputs, outputs, groups, kernel, stride, shape):
    torch.manual_seed(0)
    plain, fast = pair(nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2, groups=groups))
    clips = torch.randn(2, inputs, *shape)
    answers = compute(plain, clips), compute(fast, clips), compute(fast, clips, low=True)
    for exact, same, near in zip(*answers, strict=True):
        torch.testing.assert_close(same, exact, atol=1e-3, rtol=1e-4)
        assert (near - exact).norm() <= 0.02 * exact.norm() + 1e-3


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("layer", [
    nn.Conv3d(3, 64, 7, (1, 2, 2), 3), nn.Conv3d(4, 8, (1, 3, 3), padding=(0, 1, 1)), nn.Conv3d(4, 8, (3, 1, 1), 2),
    nn.Conv3d(6, 6, (5, 3, 3), 3, (1, 0, 2), groups=6), nn.Conv3d(4, 8, 2, padding=1), nn.Conv3d(4, 8, 1, padding=1)])
def test_other_kernels_equal_torchs(layer, low):
    plain, fast = pair(layer)
    clips = torch.randn(2, layer.in_channels, 5, 9, 11)
    for exact, near in zip(compute(plain, clips), compute(fast, clips, low), strict=True):
        assert (near - exact).norm() <= (0.02 if low else 1e-4) * exact.norm()


@pytest.mark.parametrize("layer", [nn.Conv3d(4, 8, 3, dilation=2), nn.Conv3d(4, 8, 3, padding="same"),
                                   nn.Conv3d(4, 8, 3, padding=1, padding_mode="circular")])
def test_convolutions_of_other_kinds_stay(layer):
    assert type(speed_up(nn.Sequential(layer))[0]) is nn.Conv3d


def test_only_taps_that_see_more_than_padding_are_used():
    found = [find_used_taps(*axis) for axis in ((1, 3, 1, 1), (1, 7, 2, 3), (2, 3, 1, 1), (2, 3, 2, 1))]
    assert found == [(slice(1, 2), 0), (slice(3, 4), 0), (slice(0, 3), 1), (slice(1, 3), 0)]


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 4), (1, 4, 4), (1, 2, 2), (1, 1, 1)])
def test_gradients_behind_batch_normalisation_are_torchs_own(shape, stride, groups):
    """One layer alone can be right, and its output's strides can still make batch normalisation wrong."""
    torch.manual_seed(0)
    plain, fast = pair(nn.Conv3d(8, 8, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm3d(8),
                       nn.ReLU(inplace=True), nn.Conv3d(8, 4, 1))
    clips = torch.randn(4, 8, *shape)
    for own, torchs in zip(compute(fast, clips), compute(plain, clips), strict=True):
        torch.testing.assert_close(own, torchs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("groups", [1, 8])
def test_results_can_be_changed_in_place(groups):
    plain, fast = pair(nn.Conv3d(8, 8, 3, padding=1, groups=groups), nn.ReLU(inplace=True))
    clips = torch.randn(2, 8, 2, 3, 3)
    for own, torchs in zip(compute(fast, clips), compute(plain, clips), strict=True):
        torch.testing.assert_close(own, torchs, rtol=1e-4, atol=1e-4)


def test_weights_are_not_copied_for_each_clip_of_a_batch():
    """What torch does with rows that have gaps in memory, in bfloat16 and without gradients."""
    network = speed_up(nn.Conv3d(64, 128, 1, stride=2, bias=False))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.profiler.profile() as profile:
        network(torch.randn(8, 64, 4, 4, 4))
    called = {event.key for event in profile.key_averages()}
    assert "aten::mm" in called and "aten::bmm" not in called


def test_maps_are_pooled_in_their_own_precision():
    plain, fast = pair(nn.MaxPool3d(3, 2, 1))
    clips = torch.randn(2, 4, 6, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(clips).dtype == torch.bfloat16 and torch.equal(fast(clips).float(), plain(clips).float())


def test_channels_are_shuffled_as_torch_does_and_their_gradients_have_no_gaps():
    plain, fast = ChannelShuffle(), speed_up(ChannelShuffle())
    maps = [torch.randn(2, 4, 2, 3, 3, requires_grad=True) for _ in range(2)]
    results = [shuffle(*maps) for shuffle in (plain, fast)]
    assert torch.equal(*results) and results[1].is_contiguous(memory_format=torch.channels_last_3d)
    gradients = [torch.autograd.grad(result.square().sum(), maps) for result in results]
    for torchs, own in zip(*gradients, strict=True):
        assert torch.equal(torchs, own) and own.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", mark_slow(STUDY_B, ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"]))
def test_a_network_keeps_its_weights_answers_and_gradients(name):
    torch.manual_seed(0)
    plain = build_model(name, **SMALL).eval()  # statistics of two clips would enlarge every rounding
    fast = speed_up(copy.deepcopy(plain))
    clips, labels, gradients = torch.randn(2, 3, 8, 32, 32), torch.tensor([0, 1]), []
    assert {key: value.shape for key, value in fast.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()}
    torch.testing.assert_close(fast(clips), plain(clips), rtol=1e-3, atol=1e-4)
    for network in (plain, fast):
        cross_entropy(network(clips), labels).backward()
        gradients.append(torch.cat([weights.grad.flatten() for weights in network.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 0.01 * gradients[0].norm()


def test_a_network_is_sped_up_for_clips_of_every_size():
    plain = build_model("mobilenetv2", **SMALL).eval()
    fast = speed_up(speed_up(copy.deepcopy(plain)))
    for shape in ((1, 3, 8, 32, 32), (2, 3, 9, 45, 40)):
        clips = torch.randn(shape)
        torch.testing.assert_close(fast(clips), plain(clips), rtol=1e-3, atol=1e-4)


def test_bfloat16_is_chosen_for_sped_up_networks_and_not_for_torchs_own_convolutions(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    network = build_model("squeezenet", **SMALL)
    assert choose_precision("auto", network=network) == "32-true"
    assert choose_precision("auto", network=speed_up(network)) == "bf16-mixed"


def test_a_network_without_3d_convolutions_stays_as_it_is():
    network = build_model("convlstm", **SMALL)
    kinds = [type(layer) for layer in network.modules()]
    assert [type(layer) for layer in speed_up(network).modules()] == kinds
