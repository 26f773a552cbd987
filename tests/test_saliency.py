"""Saliency of known models, the moving region of drawn clips, and what is computed from both."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, draw_square
from random_models import save_random_model
from torch import nn

from health_actions.analysis.saliency import (
    compare_shares,
    compute_saliency,
    draw_clips,
    explain_folds,
    find_motion,
    reset_weights,
    share_in_motion,
    summarise_shares,
)
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
    before, after = model(clips), reset_weights(model, seed=3)(clips)
    plain = build_model(**card["architecture"]).eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(before, after) and torch.allclose(after, plain(clips), atol=1e-5)


def make_predictions(wrong: int, right: int) -> pd.DataFrame:
    rows = [(f"clip_{number:02d}", 1 + number % 3, "a", "b" if number < wrong else "a")
            for number in range(wrong + right)]
    return pd.DataFrame(rows, columns=["clip", "fold", "class", "predicted"])


def test_all_errors_are_drawn_and_the_rest_evenly():
    predictions = make_predictions(3, 27)
    drawn = draw_clips(predictions, 12)
    assert len(drawn) == 12 and drawn.index.is_monotonic_increasing
    is_right = drawn["class"] == drawn["predicted"]
    assert (~is_right).sum() == 3 and (drawn[is_right]["fold"].value_counts() == 3).all()
    pd.testing.assert_frame_equal(drawn, draw_clips(predictions, 12))
    for wrong, right, expected in ((20, 10, 25), (0, 30, 10), (30, 0, 30), (2, 3, 5)):  # at least half are right
        assert len(draw_clips(make_predictions(wrong, right), 10)) == expected


def test_each_clip_is_explained_by_the_model_of_its_fold(tmp_path, frames_folder, splits):
    testing = splits[splits["subset"] == "testing"].assign(predicted=CLASSES[1])
    for fold in (1, 2):
        save_random_model(tmp_path / f"fold_{fold}", "cnn_lstm_custom", "handwash", lstm_width=16, fold=fold, seed=fold)
    clip = testing["clip"].iloc[0]
    table, maps = explain_folds(tmp_path, testing, frames_folder=frames_folder, keep={clip})
    assert list(table["clip"]) == list(testing["clip"]) and set(maps) == {clip}
    assert table["right"].tolist() == (testing["class"] == CLASSES[1]).tolist()
    shares = table[["share", "area", "untrained_share", "untrained_area"]]
    assert ((shares > 0) & (shares < 1)).all(axis=None)
    saliency, motion = maps[clip]
    assert saliency.shape == motion.shape == (8, 32, 32)
    assert share_in_motion(saliency, motion) == pytest.approx(tuple(table.loc[0, ["share", "area"]]), abs=1e-4)
    again, _ = explain_folds(tmp_path, testing, frames_folder=frames_folder)
    pd.testing.assert_frame_equal(table, again)


def make_shares(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["right", "share", "area", "untrained_share", "untrained_area"])


def test_ratios_are_those_computed_by_hand():
    table = make_shares([(True, 0.6, 0.3, 0.2, 0.2), (True, 0.2, 0.1, 0.4, 0.4), (True, np.nan, 0, np.nan, 0),
                         (False, 0.1, 0.4, 0.1, 0.2)])
    ratios = compare_shares(table).set_index(["model", "clips"])
    first = ratios.loc[("trained", "right"), ["count", "share", "area", "ratio", "low", "high"]]
    assert first.tolist() == pytest.approx([2, 0.4, 0.2, 2, 2, 2])
    assert ratios.loc[("untrained", "right"), "ratio"] == pytest.approx(1)
    assert ratios.loc[("trained", "wrong"), "ratio"] == pytest.approx(0.25)
    assert ratios.loc[("trained", "wrong"), ["low", "high"]].isna().all()  # one clip
    assert summarise_shares(compare_shares(table)).count("\n\n") == 3


def test_an_interval_holds_the_ratio_and_is_the_same_each_time():
    generator = np.random.default_rng(0)
    area = generator.uniform(0.2, 0.4, 50)
    table = make_shares({"right": True, "share": area * generator.uniform(1, 1.3, 50), "area": area,
                         "untrained_share": area, "untrained_area": area})
    ratios = compare_shares(table)
    assert 1 < ratios["low"][0] < ratios["ratio"][0] < ratios["high"][0] < 1.3
    assert ratios["count"].tolist() == [50, 0, 50, 0]
    sentences = summarise_shares(ratios).split("\n\n")
    assert len(sentences) == 2 and "above chance" in sentences[0] and "not different from chance" in sentences[1]
    pd.testing.assert_frame_equal(ratios, compare_shares(table))
