"""Behaviour tests of models that are known to behave well or badly, on clips drawn here."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_square, write_video
from torch import nn

from health_actions.analysis import behaviour, evaluation
from health_actions.analysis.behaviour import (
    Mask,
    brighten,
    change_clip,
    check_behaviour,
    choose_plainest,
    describe_results,
    list_changes,
    locate_hand,
    locate_hands,
    mask_discs,
    mirror,
    move,
    pair_cameras,
    reverse,
)
from health_actions.data.extraction import extract_archives
from health_actions.figures.networks import plot_behaviour
from synthetic_clips.ntu import clip_name, describe_clip

CLASSES = ["falling_down", "headache"]
SETTINGS = {"falling": "falling_down", "hand_action": "headache", "brightness": [0.8, 1.2], "shift": 0.04, "mask": 0.12}
HEADACHE = clip_name(3, 1, 44, 2).removesuffix(".avi")


class Judge(nn.Module):
    """Sure of a fall where the right half of the clip (or its second half in time) is brighter than the other."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, clips):
        first, second = clips.float().tensor_split(2, dim=self.axis)
        difference = second.mean((1, 2, 3, 4)) - first.mean((1, 2, 3, 4))
        return torch.stack([40 * difference, -40 * difference], 1)


def _clip(height=20, width=30, frames=4):
    return torch.randint(0, 255, (frames, 3, height, width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def test_mirrored_twice_is_the_clip_again():
    frames = _clip()
    assert torch.equal(mirror(mirror(frames)), frames)
    assert torch.equal(mirror(frames)[..., 0], frames[..., -1])


def test_reversed_is_the_other_way_round():
    frames = _clip()
    assert torch.equal(reverse(frames)[0], frames[-1]) and torch.equal(reverse(reverse(frames)), frames)


def test_brightness_is_a_factor_up_to_white():
    frames = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert brighten(frames, factor=1.2)[0, :, 0, 0].tolist() == [12, 120, 255]
    assert brighten(frames, factor=0.8)[0, :, 0, 0].tolist() == [8, 80, 200]


@pytest.mark.parametrize(("share", "pixels"), [(0.1, 3), (-0.1, -3), (0.0, 0)])
def test_moved_clips_keep_their_size_and_repeat_the_edge(share, pixels):
    frames = _clip()
    moved = move(frames, share=share)
    assert moved.shape == frames.shape and moved.dtype == torch.uint8
    taken = (torch.arange(30) - pixels).clamp(0, 29)
    assert torch.equal(moved, frames[..., taken])


def test_the_harmless_changes_have_names_and_keep_the_shape():
    changes = list_changes([0.8, 1.2], 0.04)
    assert list(changes) == ["mirrored", "brightness x 0.8", "brightness x 1.2", "moved left by 4%",
                             "moved right by 4%"]
    assert {change(_clip(), "any", torch.arange(4)).shape for change in changes.values()} == {(4, 3, 20, 30)}


def test_a_mask_covers_its_disc_with_the_colour_around_and_nothing_else():
    frames = torch.full((2, 3, 40, 60), 90, dtype=torch.uint8)
    frames[0, :, 18:23, 28:33] = 240  # the hand
    frames[:, :, :, 50:] = 30
    masked = mask_discs(frames, torch.tensor([[30.0, 20.0], [100.0, 20.0]]), 6)
    assert (masked[0, :, :, :50] == 90).all(), "the hand is gone"
    assert torch.equal(masked[1], frames[1]), "the second disc is outside"
    noise = _clip(40, 60, 1)
    changed = (mask_discs(noise, torch.tensor([[10.0, 5.0]]), 6) != noise).any(1)[0]
    down, right = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    inside = torch.hypot(right - 10.0, down - 5.0) <= 6
    assert not changed[~inside].any() and changed[inside].float().mean() > 0.9


def test_a_mask_follows_its_place_in_any_picture_size():
    places = {"a": np.array([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]])}
    frames = _clip(40, 80, 2)
    changed = (Mask(places, 0.1)(frames, "a", torch.tensor([2, 1])) != frames).any(1)
    centres = [frame.nonzero().float().mean(0).tolist() for frame in changed]
    assert np.allclose(centres, [[20, 72], [20, 40]], atol=0.6)


def test_the_acting_hand_is_known_in_rendered_clips_only():
    frames = describe_clip(HEADACHE).frames
    hand, leg = locate_hand(f"headache/{HEADACHE}", frames)
    assert hand.shape == leg.shape == (frames, 2) and hand.min() > 0 and hand.max() < 1
    assert hand[frames // 2, 1] < 0.5 * leg[frames // 2, 1], "at the head, above the shin"
    assert locate_hand("fall/subject_1_3", 80) is None
    assert locate_hand(HEADACHE, frames + 1) is None, "another clip of that name"
    clips = pd.DataFrame({"clip": [HEADACHE, HEADACHE], "length": frames, "synthetic": [True, False]})
    assert list(locate_hands(clips.head(1))) == [HEADACHE] and not locate_hands(clips.tail(1))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Falls (a square that goes to the right), filmed from two sides, and a rendered headache's name: frames, clips."""
    folder = tmp_path_factory.mktemp("films")
    names = [clip_name(performer, 1, 43, camera) for performer in (3, 6) for camera in (1, 2)]
    for number, name in enumerate(names):
        side = 1 if number % 2 else -1  # the first camera sees it the other way round
        write_video(folder / "falling_down" / name, draw_square((0, side), frames=40, width=64, height=36, square=12))
    frames = describe_clip(HEADACHE).frames
    drawn = np.roll(draw_square((0, 0), frames=frames, width=64, height=36, square=12), (8, 18), axis=(1, 2))
    write_video(folder / "headache" / f"{HEADACHE}.avi", drawn)
    output = tmp_path_factory.mktemp("archives")
    index = extract_archives(folder, output, CLASSES, height=36, processes=1)
    assert (index["status"] == "ok").all()
    return output, index


@pytest.fixture
def run(films, tmp_path, monkeypatch):
    """Test a model on the films: (axis of the Judge, which rows) -> results by test, and clips."""
    frames, index = films
    card = {"classes": CLASSES, "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1], "colour": "rgb"},
            "clip": {"size": 32, "window": 8, "stride": 4, "test_window": "centre"},
            "training": {"architecture": "judge", "fold": 1, "precision": "32-true"}}
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "card.json").write_text(json.dumps(card))

    def check(axis=-1, chosen=None, **settings):
        monkeypatch.setattr(evaluation, "load_model", lambda folder: (Judge(axis), card))
        splits = index.assign(fold=1, subset="testing")
        splits = splits if chosen is None else splits[chosen(splits)]
        results, clips = check_behaviour(tmp_path, splits, index.assign(synthetic=True), frames_folder=frames,
                                         **SETTINGS | settings)
        return results.set_index("test"), clips
    return check


def test_a_model_that_tells_left_from_right_fails_where_that_changes(run):
    results, clips = run(axis=-1)
    assert list(results["kind"].unique()) == list(behaviour.KINDS)
    assert results.loc["mirrored", ["clips", "failing", "rate"]].tolist() == [5, 5, 0]
    assert results.loc["brightness x 0.8", "rate"] == 1
    assert results.loc["brightness x 0.8", "accuracy"] == results.loc["brightness x 0.8", "accuracy_before"]
    assert results.loc["mirrored", "accuracy"] == pytest.approx(1 - results.loc["mirrored", "accuracy_before"])
    low, high = evaluation.give_interval(5, 5)
    assert results.loc["brightness x 0.8", ["low", "high"]].tolist() == [round(low, 3), high]
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


def test_backwards_swaps_the_answer_of_a_model_that_looks_at_time(run):
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
    assert alone["probability_after"] == against["probability_after"]
    assert alone["probability_before"] == rows.loc["mirrored", "probability_before"]
    assert against["as_expected"] == (against["probability_after"] < against["probability_before"])
    assert results.loc["headache, hand masked", "clips"] == 1


def test_what_cannot_be_tested_is_said_and_not_made_up(run, films, monkeypatch):
    monkeypatch.setattr(behaviour, "locate_hands", lambda clips: {})
    results, clips = run(falling="fall", chosen=lambda splits: splits["scene"] == "C002")
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
    assert len(plot_behaviour(results.reset_index()).axes) == 3
    without, _ = run(chosen=lambda splits: splits["class"] == "falling_down")
    assert without.loc["headache, hand masked", "note"] == "no test clips of headache"


def test_the_plainest_clip_moves_most_and_is_filmed_from_the_front(tmp_path):
    for name, step in (("slow", 1), ("fast", 3), ("fastest", 4), ("still", 0)):
        write_video(tmp_path / "clips" / "fall" / f"{name}.mp4", draw_square((0, step), frames=40, height=48))
    extract_archives(tmp_path / "clips", tmp_path / "frames", ["fall"], height=48, processes=1)
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


def test_pictures_show_what_the_model_would_see(films):
    frames, _ = films
    plain = change_clip(frames, f"headache/{HEADACHE}", None, window=8, stride=4, size=36)
    mirrored = change_clip(frames, f"headache/{HEADACHE}", mirror, window=8, stride=4, size=36)
    assert plain.shape == (8, 36, 36, 3) and plain.dtype == np.uint8
    assert np.array_equal(plain[:, :, ::-1], mirrored)
