"""`speed_up` changes how networks compute, not what."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from health_actions.learning.precision import choose_precision
from health_actions.models import build_model
from health_actions.models.speedups import find_used_taps, speed_up

SMALL = {"num_classes": 3, "frames": 8, "size": 32}
STUDY_B = ["c3d", "resnet18", "resnet50", "resnext101", "mobilenetv2", "shufflenetv2", "squeezenet"]


def speed_up_layers(*layers: nn.Module) -> nn.Module:
    return speed_up(nn.Sequential(*layers), 8, 32)


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [
    (8, 16, 1), (3, 8, 1), (16, 16, 4), (16, 16, 16), (32, 32, 1), (64, 64, 32)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2, 2)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (2, 1, 1), (2, 7, 7), (3, 2, 5), (8, 10, 10)])
def test_convolutions_equal_torchs_in_both_precisions(inputs, outputs, groups, stride, shape):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv3d(inputs, outputs, 3, stride, 1, groups=groups))
    fast = speed_up_layers(copy.deepcopy(plain[0]))
    clips = torch.randn(2, inputs, *shape).contiguous(memory_format=torch.channels_last_3d)
    answers = []
    for network, low in ((plain, False), (fast, False), (fast, True)):
        maps = clips.clone().requires_grad_()
        network.zero_grad()
        garbage = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (1000, 10_000, 100_000)]
        del garbage  # gradients that torch leaves unwritten would show it
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            result = network(maps)
        weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
        (result.float() * weights).sum().backward()
        answers.append((result.float(), maps.grad.clone(), network[0].weight.grad.clone()))
    for exact, same, near in zip(*answers, strict=True):
        assert torch.allclose(exact, same, atol=1e-3, rtol=1e-4)
        assert (near - exact).norm() <= 0.02 * exact.norm() + 1e-3


def test_only_taps_that_see_more_than_padding_are_used():
    assert find_used_taps(1, 3, 1, 1) == (1, 2, 0) and find_used_taps(1, 7, 2, 3) == (3, 4, 0)
    assert find_used_taps(2, 3, 1, 1) == (0, 3, 1) and find_used_taps(2, 3, 2, 1) == (1, 3, 0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 4), (1, 4, 4), (1, 2, 2)])
def test_gradients_behind_batch_normalisation_are_torchs_own(shape, stride):
    """One layer alone can be right, and its output's strides can still make batch normalisation wrong."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv3d(8, 8, 3, stride, 1, groups=8, bias=False), nn.BatchNorm3d(8), nn.ReLU(inplace=True),
                          nn.Conv3d(8, 4, 1))
    fast = speed_up(copy.deepcopy(plain), 8, 32)
    clips = torch.randn(4, 8, *shape)
    for network in (plain, fast):
        network(clips).square().mean().backward()
    for own, torchs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, torchs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", STUDY_B)
def test_a_network_keeps_its_weights_answers_and_gradients(name):
    torch.manual_seed(0)
    plain = build_model(name, **SMALL).eval()  # statistics of two clips would enlarge every rounding
    fast = speed_up(copy.deepcopy(plain), 8, 32)
    clips, labels, gradients = torch.randn(2, 3, 8, 32, 32), torch.tensor([0, 1]), []
    assert {key: value.shape for key, value in fast.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()}
    torch.testing.assert_close(fast(clips), plain(clips), rtol=1e-3, atol=1e-4)
    for network in (plain, fast):
        cross_entropy(network(clips), labels).backward()
        gradients.append(torch.cat([weights.grad.flatten() for weights in network.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 0.01 * gradients[0].norm()


def test_bfloat16_is_chosen_for_sped_up_networks_and_not_for_torchs_own_convolutions(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    network = build_model("squeezenet", **SMALL)
    assert choose_precision("auto", network=network) == "32-true"
    assert choose_precision("auto", network=speed_up(network, 8, 32)) == "bf16-mixed"


def test_a_network_without_3d_convolutions_stays_as_it_is():
    network = build_model("convlstm", **SMALL)
    assert speed_up(network, 8, 32) is network and not network._forward_pre_hooks
