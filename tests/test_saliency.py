"""Saliency of known models, the moving region of drawn clips, and what is computed from both."""

import numpy as np
import pytest
import torch
from conftest import draw_square
from random_models import save_random_model
from torch import nn

from health_actions.analysis.saliency import compute_saliency, find_motion, reset_weights, share_in_motion
from health_actions.models import build_model
from health_actions.models.weights import load_model


class Quadrant(nn.Module):
    """Class 1 is the weighted sum of the upper left quadrant of the last two frames; class 0 sees nothing."""

    def __init__(self):
        super().__init__()
        weights = torch.zeros(3, 4, 8, 8)
        weights[:, 2:, :4, :4] = torch.tensor([1.0, -3.0, 2.0])[:, None, None, None]
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, clips):
        logit = (clips * self.weights).sum((1, 2, 3, 4))
        return torch.stack([0 * logit, logit], dim=1)


def test_saliency_is_the_largest_absolute_weight_of_a_linear_model():
    saliency = compute_saliency(Quadrant(), torch.rand(3, 4, 8, 8), 1)
    expected = torch.zeros(4, 8, 8)
    expected[2:, :4, :4] = 3
    assert torch.equal(saliency, expected)
    assert not compute_saliency(Quadrant(), torch.rand(3, 4, 8, 8), 0).any()


@pytest.mark.parametrize("name, options", [
    ("convlstm", {}), ("cnn_lstm_custom", {"lstm_width": 16}), ("cnn_lstm_efficientnet_lite0", {"freeze": True}),
    ("three_stream", {}), ("resnet18", {}),
])
def test_saliency_leaves_the_model_as_it_was(name, options):
    model = build_model(name, num_classes=3, frames=8, size=32, **options).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    clip = torch.rand(3, 8, 32, 32)
    saliency = compute_saliency(model, clip, 2)
    assert saliency.shape == (8, 32, 32) and saliency.dtype == torch.float32 and not saliency.requires_grad
    assert (saliency >= 0).all() and saliency.any()
    assert torch.equal(saliency, compute_saliency(model, clip, 2))  # no dropout
    assert model.training and not clip.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_the_moving_region_is_the_path_of_the_square():
    frames = draw_square((0, 4), frames=6, width=128, height=128, square=24)
    motion = find_motion(frames)
    assert motion.shape == (6, 128, 128) and motion.dtype == bool
    for number, frame in enumerate(motion):  # its left and its right edge, and a widened rim of at most 12 pixels
        assert frame[12, 4 * number] and frame[12, 4 * number + 23]
        assert not frame[40:].any() and not frame[:, 4 * number + 44:].any()
    assert motion.mean() < 0.12


@pytest.mark.parametrize("size", [32, 128])
def test_noise_and_flicker_are_no_motion(size):
    noise = np.random.default_rng(0).normal(0, 4, (8, size, size, 3))
    flicker = np.linspace(-40, 40, 8)[:, None, None, None]
    assert not find_motion((120 + noise + flicker).round().astype(np.uint8)).any()


def test_even_saliency_has_the_share_of_the_area():
    motion = np.zeros((4, 8, 8), bool)
    motion[:, :4] = True
    motion[3, :, :4] = True
    share, area = share_in_motion(np.ones((4, 8, 8), np.float32), motion)
    assert share == area == pytest.approx(motion.mean())
    # Even in each frame, but most of it in the last: neither is looking at what moves.
    late = np.ones((4, 8, 8), np.float32) * np.array([1, 1, 1, 97], np.float32)[:, None, None]
    share, area = share_in_motion(late, motion)
    assert share == pytest.approx(area) == pytest.approx(0.03 * 0.5 + 0.97 * 0.75)


def test_shares_inside_and_outside_of_the_region_and_where_there_are_none():
    motion = np.zeros((2, 4, 4), bool)
    motion[:, :2, :2] = True
    assert share_in_motion(motion.astype(np.float32), motion) == (1, 0.25)
    assert share_in_motion((~motion).astype(np.float32), motion) == (0, 0.25)
    ones = np.ones((2, 4, 4), np.float32)
    for saliency, region, area in ((ones, motion & False, 0), (0 * ones, motion | True, 1)):
        share, found = share_in_motion(saliency, region)
        assert np.isnan(share) and found == area


def test_frozen_layers_keep_their_weights_and_all_others_are_drawn_anew():
    model = build_model("cnn_lstm_custom", num_classes=3, frames=8, size=32, lstm_width=16, freeze=True)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    after = {key: tensor.clone() for key, tensor in reset_weights(model).state_dict().items()}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], after[key]) == key.startswith("features") for key in before)
    assert all(torch.equal(after[key], tensor) for key, tensor in reset_weights(model).state_dict().items())


def test_weights_that_are_drawn_anew_take_effect_in_a_loaded_model(tmp_path):
    model, card = load_model(save_random_model(tmp_path / "fold_1", "squeezenet", "ntu"))
    clips = torch.rand(1, 3, 8, 32, 32)
    before, after = model(clips), reset_weights(model)(clips)
    plain = build_model(**card["architecture"]).eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(before, after) and torch.allclose(after, plain(clips), atol=1e-5)
