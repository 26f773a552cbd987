"""Behaviour tests of models that are known to behave well or badly, on clips drawn here."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_square, write_video
from random_models import make_card
from torch import nn

from health_actions.analysis.behaviour import (
    KINDS,
    check_behaviour,
    choose_plainest,
    cover_place,
    describe_results,
    list_changes,
    pair_cameras,
    reverse,
    shift_sideways,
)
from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.learning import scores

CLASSES = ["falling_down", "headache"]
FALLS = [f"S001C00{camera}P00{performer}R001A043" for performer in (3, 6) for camera in (1, 2)]
HEADACHE = "S001C002P003R001A044"
SETTINGS = {"falling": "falling_down", "hand_action": "headache", "brightness": [0.8, 1.2], "shift": 0.04, "mask": 0.12}


class Judge(nn.Module):
    """Sure of a fall where the second half of a clip along an axis is brighter than the first half."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, clips):
        first, second = clips.float().tensor_split(2, dim=self.axis)
        difference = second.mean((1, 2, 3, 4)) - first.mean((1, 2, 3, 4))
        return torch.stack([40 * difference, -40 * difference], 1)


def draw_noise(height=20, width=30, frames=4):
    return torch.randint(0, 255, (frames, 3, height, width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def test_the_harmless_changes_have_names_and_keep_the_shape():
    changes, frames = list_changes([0.8, 1.2], 0.04), draw_noise()
    assert list(changes) == ["mirrored", "brightness x 0.8", "brightness x 1.2", "moved left by 4%",
                             "moved right by 4%"]
    changed = {name: change(frames, "any", torch.arange(4)) for name, change in changes.items()}
    assert {clip.shape for clip in changed.values()} == {(4, 3, 20, 30)}
    assert torch.equal(changed["mirrored"], frames.flip(-1)) and torch.equal(reverse(frames), frames.flip(0))
    assert torch.equal(changed["moved left by 4%"][..., :-1], frames[..., 1:])
    for factor in (0.8, 1.2):
        expected = (frames * factor).clamp(max=255).to(torch.uint8)
        assert torch.equal(changed[f"brightness x {factor}"], expected), "up to white"


@pytest.mark.parametrize(("share", "pixels"), [(0.1, 3), (-0.1, -3), (0.0, 0)])
def test_shifted_clips_keep_their_size_and_repeat_the_edge(share, pixels):
    frames = draw_noise()
    shifted = shift_sideways(frames, share=share)
    assert shifted.dtype == torch.uint8
    assert torch.equal(shifted, frames[..., (torch.arange(30) - pixels).clamp(0, 29)])


def test_a_mask_covers_its_disc_with_the_colour_around_and_nothing_else():
    frames = torch.full((2, 3, 40, 60), 90, dtype=torch.uint8)
    frames[0, :, 18:23, 28:33] = 240  # the hand
    frames[:, :, :, 50:] = 30
    places = {"a": np.array([[1.6, 0.5], [0.5, 0.5]])}
    masked = cover_place(frames, "a", torch.tensor([1, 0]), places=places, radius=0.15)
    assert (masked[0, :, :, :50] == 90).all(), "the hand is gone"
    assert torch.equal(masked[1], frames[1]), "the second disc is outside"
    noise = draw_noise(40, 60, 1)
    changed = (cover_place(noise, "a", torch.tensor([1]), places=places, radius=0.15) != noise).any(1)[0]
    down, right = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    inside = torch.hypot(right - 30.0, down - 20.0) <= 6
    assert not changed[~inside].any() and changed[inside].float().mean() > 0.9


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Falls (a square that moves sideways), filmed from two sides, and a headache: frames folder and index."""
    folder = tmp_path_factory.mktemp("films")
    for number, name in enumerate(FALLS):
        side = 1 if number % 2 else -1  # the first camera sees it the other way round
        write_video(folder / "falling_down" / f"{name}_rgb.avi", draw_square((0, side), width=64, height=36, square=12))
    drawn = np.roll(draw_square((0, 0), frames=60, width=64, height=36, square=12), (8, 18), axis=(1, 2))
    write_video(folder / "headache" / f"{HEADACHE}_rgb.avi", drawn)
    output = tmp_path_factory.mktemp("frames")
    index = extract_frames(folder, output, find_clips(folder, CLASSES, "ntu"), height=36, workers=1)
    assert (index["status"] == "ok").all()
    return output, index


@pytest.fixture
def run(films, tmp_path, monkeypatch):
    """Test a Judge on the films: (axis of the Judge, which rows) -> results by test, and clips."""
    frames, index = films
    card = make_card("judge", "ntu", classes=CLASSES)
    card["clip"]["stride"], card["preprocessing"] = 4, {"mean": [0] * 3, "std": [1] * 3, "colour": "rgb"}
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "card.json").write_text(json.dumps(card))
    [headache] = index.loc[index["class"] == "headache", "clip"]
    places = {headache: (np.full((60, 2), [0.38, 0.38]), np.full((60, 2), [0.38, 0.8]))}

    def check(axis=-1, chosen=None, **settings):
        monkeypatch.setattr(scores, "load_model", lambda folder: (Judge(axis), card))
        splits = index.assign(fold=1, subset="testing")
        splits = splits if chosen is None else splits[chosen(splits)]
        results, clips = check_behaviour(tmp_path, splits, frames_folder=frames,
                                         **{"places": places} | SETTINGS | settings)
        return results.set_index("test"), clips
    return check


def test_a_model_that_tells_left_from_right_fails_where_that_changes(run):
    results, clips = run(axis=-1)
    assert list(results["kind"].unique()) == list(KINDS)
    assert results.loc["mirrored", ["clips", "failing", "rate"]].tolist() == [5, 5, 0]
    same = results.loc["brightness x 0.8"]
    assert same["rate"] == 1 and same["accuracy"] == same["accuracy_before"]
    assert results.loc["mirrored", "accuracy"] == pytest.approx(1 - results.loc["mirrored", "accuracy_before"])
    assert same[["low", "high"]].tolist() == pytest.approx(scores.wilson_interval(5, 5), abs=1e-3)
    assert results.loc["plainest clip of each action", "clips"] == 2
    mirrored = clips[clips["test"] == "mirrored"]
    assert not mirrored["as_expected"].any() and (mirrored["predicted_before"] != mirrored["predicted_after"]).all()
    assert np.allclose(mirrored["probability_before"] + mirrored["probability_after"], 1, atol=0.01)


def test_other_cameras_are_compared_with_the_one_in_front(run):
    results, clips = run()
    pairs = clips[clips["test"] == "another camera"]
    assert len(pairs) == results.loc["another camera", "clips"] == 2
    assert pairs["clip"].str.contains("C001").all() and pairs["compared_with"].str.contains("C002").all()
    mirrored = clips[clips["test"] == "mirrored"].set_index("clip")
    for row in pairs.itertuples():
        assert row.predicted_after == mirrored.at[row.clip, "predicted_before"]
        assert row.predicted_before == mirrored.at[row.compared_with, "predicted_before"]
        assert row.probability_before == mirrored.at[row.compared_with, "probability_before"]


def test_playing_backwards_swaps_the_answer_of_a_model_that_compares_the_halves_of_a_clip(run):
    results, clips = run(axis=2)
    falls = clips[clips["test"] == "falling_down played backwards"]
    assert len(falls) == results.loc["falling_down played backwards", "clips"] == 4
    assert np.allclose(falls["probability_before"] + falls["probability_after"], 1, atol=0.01)
    assert (falls["as_expected"] == (falls["probability_before"] > 0.5)).all()
    blind, _ = run(axis=1)  # halves of the three colours: time has no part in it
    assert blind.loc["falling_down played backwards", "rate"] == 0, "a probability that stays does not go down"


def test_masking_the_hand_is_compared_with_masking_a_leg(run):
    results, clips = run(axis=-2)  # upper half against lower half
    rows = clips[clips["class"] == "headache"].set_index("test")
    alone, against = rows.loc["headache, hand masked"], rows.loc["headache, hand masked and not a leg"]
    assert alone["probability_after"] == against["probability_after"] != alone["probability_before"]
    assert alone["probability_before"] == rows.loc["mirrored", "probability_before"]
    assert against["as_expected"] == (against["probability_after"] < against["probability_before"])
    assert results.loc["headache, hand masked", "clips"] == 1


def test_what_cannot_be_tested_is_reported(run):
    results, clips = run(falling="fall", places={}, chosen=lambda splits: splits["scene"] == "C002")
    empty = results[results["clips"] == 0]["note"].to_dict()
    assert empty == {
        "another camera": "no test clips show one movement from two cameras",
        "fall played backwards": "no test clips of fall",
        "headache, hand masked": "not possible without joints",
        "headache, hand masked and not a leg": "not possible without joints"}
    assert results.loc[list(empty), ["rate", "low", "high"]].isna().all(axis=None)
    assert not set(empty) & set(clips["test"])
    text = describe_results(results.reset_index())
    assert "fall played backwards: not tested, no test clips of fall." in text and "**fails in" in text
    without, _ = run(chosen=lambda splits: splits["class"] == "falling_down")
    assert without.loc["headache, hand masked", "note"] == "no test clips of headache"


def test_the_plainest_clip_moves_most_and_is_filmed_from_the_front(tmp_path):
    for name, step in (("slow", 1), ("fast", 3), ("fastest", 4), ("still", 0)):
        write_video(tmp_path / "clips" / "fall" / f"{name}.mp4", draw_square((0, step), frames=40, height=48))
    clips = find_clips(tmp_path / "clips", ["fall"])
    extract_frames(tmp_path / "clips", tmp_path / "frames", clips, height=48, workers=1)
    tested = pd.DataFrame({"clip": ["fall/slow", "fall/fast", "fall/fastest", "fall/still"], "class": "fall",
                           "scene": ["C002", "C002", "C001", "C002"]})
    settings = {"window": 8, "stride": 2}
    assert list(choose_plainest(tested, tmp_path / "frames", **settings)["clip"]) == ["fall/fast"]
    unknown = choose_plainest(tested.assign(scene="unknown"), tmp_path / "frames", **settings)
    assert list(unknown["clip"]) == ["fall/fastest"] and unknown["movement"].item() > 1


def test_cameras_are_paired_within_a_fold_only():
    tested = pd.DataFrame({"clip": list("abcd"), "fold": [1, 1, 2, 2], "scene": ["C003", "C001", "C002", "C001"],
                           "take": ["x", "x", "x", "y"]})
    assert pair_cameras(tested).values.tolist() == [["a", 1, "b"]]
    assert pair_cameras(tested.drop(columns="take")).empty
