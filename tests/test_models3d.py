"""Of the convolutions that speed-ups replace; moves to test_speedups.py."""

import pytest
import torch
from torch import nn

from health_actions.learning.precision import choose_precision
from health_actions.models import build_model
from health_actions.models.conv3d import Conv3d, find_used_taps

SMALL = {"num_classes": 3, "frames": 8, "size": 32}


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [
    (8, 16, 1), (3, 8, 1), (16, 16, 4), (16, 16, 16), (32, 32, 1), (64, 64, 32)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2, 2)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (2, 1, 1), (2, 7, 7), (3, 2, 5), (8, 10, 10)])
def test_convolutions_equal_torchs_in_both_precisions(inputs, outputs, groups, stride, shape):
    torch.manual_seed(0)
    own = Conv3d(inputs, outputs, 3, stride, 1, groups=groups)
    plain = nn.Conv3d(inputs, outputs, 3, stride, 1, groups=groups)
    plain.load_state_dict(own.state_dict())
    clips = torch.randn(2, inputs, *shape).contiguous(memory_format=torch.channels_last_3d)
    answers = []
    for layer, low in ((plain, False), (own, False), (own, True)):
        maps = clips.clone().requires_grad_()
        layer.zero_grad()
        del_me = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (1000, 10_000, 100_000)]
        del del_me  # what torch leaves unwritten would be seen
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            result = layer(maps)
        weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
        (result.float() * weights).sum().backward()
        answers.append((result.float(), maps.grad.clone(), layer.weight.grad.clone()))
    for exact, same, near in zip(*answers, strict=True):
        assert torch.allclose(exact, same, atol=1e-3, rtol=1e-4)
        assert (near - exact).norm() <= 0.02 * exact.norm() + 1e-3


def test_only_taps_that_see_more_than_padding_are_used():
    assert find_used_taps(1, 3, 1, 1) == (1, 2, 0) and find_used_taps(1, 7, 2, 3) == (3, 4, 0)
    assert find_used_taps(2, 3, 1, 1) == (0, 3, 1) and find_used_taps(2, 3, 2, 1) == (1, 3, 0)


def test_bfloat16_is_chosen_for_these_and_not_for_torchs_own_convolutions(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose_precision("auto", network=build_model("squeezenet", **SMALL)) == "bf16-mixed"
    assert choose_precision("auto", network=nn.Conv3d(3, 3, 3)) == "32-true"




@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 4), (1, 4, 4), (1, 2, 2)])
def test_gradients_behind_batch_normalisation_are_torchs_own(shape, stride):
    """One layer alone can be right and yet hand on maps whose strides make batch normalisation wrong."""
    torch.manual_seed(0)
    networks = [nn.Sequential(kind(8, 8, 3, stride, 1, groups=8, bias=False), nn.BatchNorm3d(8), nn.ReLU(inplace=True),
                              nn.Conv3d(8, 4, 1)) for kind in (Conv3d, nn.Conv3d)]
    networks[1].load_state_dict(networks[0].state_dict())
    clips = torch.randn(4, 8, *shape)
    networks[0].to(memory_format=torch.channels_last_3d)
    for network, maps in zip(networks, (clips.to(memory_format=torch.channels_last_3d), clips), strict=True):
        network(maps).square().mean().backward()
    for own, torchs in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(own.grad, torchs.grad, rtol=1e-3, atol=1e-5)
