"""The landmark stream: rows of points, their variation, training, and the stored landmarks of clips."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from health_actions.analysis import recognition
from health_actions.analysis.studies import load_recogniser
from health_actions.data.video import UnreadableVideo
from health_actions.learning import landmarks
from health_actions.learning.landmark_training import train_stream, turn_points, vary_landmarks
from health_actions.learning.landmarks import (
    WINDOW,
    cut_windows,
    extract_landmarks,
    predict_rows,
    read_landmarks,
    read_rows,
)
from health_actions.learning.scores import predict_folds
from health_actions.models.landmark_stream import (
    DESCRIBE,
    REACH,
    TRACKERS,
    LandmarkStream,
    fill_gaps,
    join_parts,
    join_values,
    mirror_values,
    split_values,
)
from health_actions.models.weights import load_model, save_model

KINDS = ("hands", "pose")


def draw_rows(kind: str, frames: int = 30, seed: int = 0) -> torch.Tensor:
    """Rows as of a clip: points at random."""
    generator = np.random.default_rng(seed)
    found = {name: generator.random((frames, *shape), np.float32) for name, shape in TRACKERS[kind].SHAPES.items()}
    return torch.from_numpy(join_values(found, 1.5, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_where_they_were_put(kind):
    shapes = TRACKERS[kind].SHAPES
    found = {name: np.zeros((2, *shape), np.float32) for name, shape in shapes.items()}
    found["image"][1, ..., 5, :] = 0.25, 0.5, 0.125
    found["world"][1, ..., 5, :] = 1, 2, 3
    image, world, _ = split_values(torch.from_numpy(join_values(found, 2.0, kind)), kind)
    assert image.shape == world.shape == {"hands": (2, 2, 21, 3), "pose": (2, 1, 33, 3)}[kind]
    assert image[1, 0, 5].tolist() == [0.5, 0.5, 0.25], "x and z in shares of the height, too"
    assert world[1, 0, 5].tolist() == [1, 2, 3] and image[0].abs().sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_twice_is_as_before_and_the_left_becomes_the_right(kind):
    parts = split_values(draw_rows(kind)[None], kind)
    once = mirror_values(parts, kind)
    for part, twice in zip(parts, mirror_values(once, kind)):
        torch.testing.assert_close(part, twice)
    left, right = ((0, 4), (1, 4)) if kind == "hands" else ((0, 15), (0, 16))
    torch.testing.assert_close(once[0][:, :, *left], parts[0][:, :, *right] * torch.tensor([-1.0, 1, 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_features_do_not_depend_on_place_and_size_in_the_picture(kind):
    rows = draw_rows(kind)[None]
    image, world, third = split_values(rows, kind)
    moved = join_parts([image * 0.5 + 0.3, world, third])
    torch.testing.assert_close(DESCRIBE[kind](moved), DESCRIBE[kind](rows), atol=1e-3, rtol=1e-3)


def test_which_hand_is_called_left_does_not_matter():
    parts = split_values(draw_rows("hands")[None], "hands")
    swapped = join_parts([part.flip(2) for part in parts])
    torch.testing.assert_close(DESCRIBE["hands"](swapped), DESCRIBE["hands"](join_parts(parts)))


def test_a_hand_that_is_not_found_is_where_it_is_found_next_unless_that_is_too_far_away():
    parts = split_values(draw_rows("hands", 3 * REACH)[None], "hands")
    for part in parts:
        part[0, 1:, 0] = torch.nan  # the left hand is there in the first frame alone
        part[0, 4, 1] = torch.nan
    filled = fill_gaps(*parts)
    for part, whole in zip(parts, filled):
        torch.testing.assert_close(whole[0, :REACH + 1, 0], part[0, :1, 0].expand(REACH + 1, *part.shape[3:]))
        assert whole[0, REACH + 1:, 0].isnan().all()
        torch.testing.assert_close(whole[0, 4, 1], part[0, 3, 1])
        torch.testing.assert_close(whole[0, 5:, 1], part[0, 5:, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_enters_no_mean_and_the_answer_stays_finite(kind):
    rows, network = draw_rows(kind, 2 * WINDOW), LandmarkStream(kind, 4).eval()
    network.learn_scale(rows[None])
    assert network.mean.isfinite().all() and (network.std > 0).all()
    nothing = torch.full_like(rows, torch.nan)
    assert network(nothing[None, :WINDOW]).isfinite().all()
    assert np.isclose(predict_rows(network, nothing).sum(), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_variation_a_window_is_part_of_its_clip(kind):
    clips = [draw_rows(kind, frames, frames) for frames in (5, 20, 45)]
    plain = {"speed": 1.0, "turn": 0.0, "noise": 0.0, "offset": 0.0, "stretch": 0.0, "apart": 0.0,
             "missing": 0.0}
    windows, labels = vary_landmarks(clips, torch.tensor([0, 1, 0]), kind, [1, 0], torch.Generator().manual_seed(3),
                                     **plain)
    assert windows.shape == (3, WINDOW, clips[0].shape[1])
    for clip, window, before, label in zip(clips, windows, (0, 1, 0), labels):
        if label != before:  # mirrored: the label, too
            window = join_parts(mirror_values(split_values(window[None], kind), kind))[0]
        distance = (window[:, None] - clip).abs().amax(-1).amin(1)
        assert distance.max() < 1e-5, "each frame is one of the clip's"


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_to_a_mirror_image_is_that_of_the_other_side(kind):
    clips = [draw_rows(kind, 25, number) for number in range(8)]
    network = train_stream(clips, [0, 1] * 4, kind, [1, 0], epochs=1, batch_size=8)
    rows = clips[0][:WINDOW]
    mirrored = join_parts(mirror_values(split_values(rows[None], kind), kind))[0]
    np.testing.assert_allclose(predict_rows(network, mirrored), predict_rows(network, rows)[::-1], atol=1e-5)


def test_an_offset_is_the_same_in_all_frames_and_noise_is_not():
    clip, plain = draw_rows("hands", 1).expand(WINDOW, -1), {"turn": 0.0, "stretch": 0.0, "apart": 0.0, "missing": 0.0}
    for still, is_same in (({"noise": 0.0}, True), ({"offset": 0.0}, False)):
        window, _ = vary_landmarks([clip], torch.tensor([0]), "hands", [0], torch.Generator().manual_seed(1), **plain,
                                   **still)
        image, world, _ = split_values(window, "hands")
        assert (image.var(dim=1).amax() < 1e-9) == (world.var(dim=1).amax() < 1e-9) == is_same


@pytest.mark.parametrize("kind", KINDS)
def test_stretching_changes_widths_and_depths_but_no_heights(kind):
    still = {"speed": 1.0, **dict.fromkeys(("turn", "noise", "offset", "apart", "missing"), 0.0)}
    was, now = (vary_landmarks([draw_rows(kind, 25)], torch.tensor([0]), kind, [0], torch.Generator().manual_seed(1),
                               stretch=stretch, **still)[0] for stretch in (0.0, 0.1))
    for before, after in zip(split_values(was, kind)[:2], split_values(now, kind)[:2]):
        ratio = (after / before).flatten(0, -2)
        assert (ratio.amax(0) - ratio.amin(0) < 1e-4).all(), "one factor for all points of a window"
        assert abs(ratio[0, 1] - 1) < 1e-6 < abs(ratio[0, 0] - 1) < 0.11 and abs(ratio[0, 2] - 1) < 0.31


def test_points_are_turned_clockwise_in_the_plane_of_the_picture():
    points = torch.tensor([[[1.0, 0, 5]]])
    torch.testing.assert_close(turn_points(points, torch.tensor([torch.pi / 2])), torch.tensor([[[0.0, 1, 5]]]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_learns_what_differs_and_the_same_seed_gives_the_same(kind):
    clips, labels = [], []
    for number in range(24):
        rows, label = draw_rows(kind, 25, number), number % 2
        parts = split_values(rows[None], kind)
        parts[1][..., 2] += label  # a depth that tells both classes apart
        clips.append(join_parts(parts)[0])
        labels.append(label)
    first, second = (train_stream(clips, labels, kind, [0, 1], epochs=8, batch_size=8, seed=1) for _ in range(2))
    right = [predict_rows(first, clip).argmax() == label for clip, label in zip(clips, labels)]
    assert np.mean(right) >= 0.9
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], atol=0, rtol=0)


def test_a_short_clip_is_looped_and_a_long_one_cut_every_half_second():
    assert cut_windows(torch.arange(7.0)[:, None]).flatten().tolist() == [*range(7), *range(7), *range(6)]
    assert cut_windows(torch.arange(32.0)[:, None])[:, 0, 0].tolist() == [0, 5, 10]


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Three clips whose landmarks are made up, one of them damaged; what was searched."""
    monkeypatch.chdir(ROOT)
    calls = []

    def sample(path, kind, **_):
        calls.append(path.stem)
        if path.stem == "bad":
            raise UnreadableVideo("damaged: it is a test")
        tracker = {name: np.full(shape, 0.5, np.float32) for name, shape in TRACKERS[kind].SHAPES.items()}
        return ((np.zeros((24, 48, 3), np.uint8), tracker) for _ in range(12))

    monkeypatch.setattr(landmarks, "sample_landmarks", sample)
    index = pd.DataFrame({"clip": ["a/one", "a/bad", "b/two"], "path": ["a/one.mp4", "a/bad.mp4", "b/two.mp4"],
                          "class": ["a", "a", "b"], "content": ["1", "2", "3"], "status": "ok"})
    return index, calls


def test_landmarks_are_found_once_and_a_clip_that_fails_is_named(searched, tmp_path):
    index, calls = searched
    table = extract_landmarks(tmp_path, tmp_path / "out", index, "hands")
    assert table["reason"].tolist() == ["", "damaged: it is a test", ""] and table["frames"].tolist() == [12, 0, 12]
    assert table["found"].tolist() == [2, 0, 2]
    found = read_landmarks(tmp_path / "out", "a/one")
    assert float(found["aspect"]) == 2 and found["times"][-1] == pytest.approx(1.1)
    assert read_rows(tmp_path / "out", ["b/two"], "hands")[0].shape == (12, 254)
    before = sorted(calls)
    changed = index.assign(content=["1", "2", "other bytes"]).iloc[[0, 2]]
    extract_landmarks(tmp_path, tmp_path / "out", changed, "hands")
    assert sorted(calls) == sorted([*before, "two"]), "only the clip that changed is searched again"
    extract_landmarks(tmp_path, tmp_path / "out", changed.iloc[:1], "hands")
    with pytest.raises(FileNotFoundError, match="two.npz: run make repro"):
        read_landmarks(tmp_path / "out", "b/two")


def test_a_saved_stream_answers_for_stored_clips_as_networks_for_pictures_do(searched, tmp_path):
    index, _ = searched
    extract_landmarks(tmp_path, tmp_path / "landmarks", index, "hands")
    network = LandmarkStream("hands", 2).eval()
    save_model(tmp_path / "models" / "fold_1", network, {
        "architecture": {"name": "landmarks", "kind": "hands", "num_classes": 2, "frames": WINDOW, "size": 240},
        "classes": ["a", "b"], "preprocessing": {}, "frames": {}, "clip": {}, "data": {}, "scores": {},
        "training": {"fold": 1}})
    splits = pd.DataFrame({"clip": ["a/one", "b/two"], "class": ["a", "b"], "recording": "1", "fold": 1,
                           "subset": "testing"})
    table = predict_folds(tmp_path / "models", splits, frames_folder=tmp_path / "frames")
    rows = read_rows(tmp_path / "landmarks", ["a/one"], "hands")[0]
    np.testing.assert_allclose(table.loc[0, ["a", "b"]].to_numpy(float), predict_rows(network, rows), atol=1e-5)
    assert load_model(tmp_path / "models" / "fold_1")[0].kind == "hands"


def test_the_network_of_all_clips_is_used_unless_test_clips_must_be_unseen(tmp_path):
    models = tmp_path / "build" / "handwash" / "models" / "landmarks"
    for folder, classes in (("fold_1", ["a", "b"]), ("all", ["c", "d"])):
        save_model(models / folder, LandmarkStream("hands", 2).eval(), {
            "architecture": {"name": "landmarks", "kind": "hands", "num_classes": 2, "frames": WINDOW, "size": 240},
            "classes": classes, "preprocessing": {}, "frames": {}, "clip": {}, "data": {}, "training": {"fold": 1},
            "scores": {"validation_clip_top1": 0.5}})
    assert load_recogniser(tmp_path, "handwash").classes == ["c", "d"]
    assert load_recogniser(tmp_path, "handwash", unseen=True).classes == ["a", "b"]
    shutil.rmtree(models / "all")
    assert load_recogniser(tmp_path, "handwash").classes == ["a", "b"]


def test_a_clip_is_an_alert_where_one_of_its_windows_is(tmp_path, monkeypatch):
    save_model(tmp_path, LandmarkStream("pose", 3).eval(), {
        "architecture": {"name": "landmarks", "kind": "pose", "num_classes": 3, "frames": WINDOW, "size": 240},
        "classes": ["fan_self", "falling_down", "everyday"], "preprocessing": {}, "frames": {}, "clip": {}, "data": {},
        "scores": {}, "training": {}})
    shares = np.array([[0.2, 0.1, 0.7], [0.1, 0.5, 0.4], [0.0, 0.6, 0.4], [0.0, 0.0, 1.0]])
    monkeypatch.setattr(recognition, "predict_windows", lambda *_: shares)
    pose = {name: np.full(shape, 0.5, np.float32) for name, shape in TRACKERS["pose"].SHAPES.items()}
    nobody = {name: np.full_like(values, np.nan) for name, values in pose.items()}
    pairs = [(np.zeros((24, 48, 3), np.uint8), pose)] * 30
    watching, calm = (recognition.LandmarkRecogniser(tmp_path, alerts=alerts) for alerts in (["falling_down"], []))
    assert watching.classify(pairs, 30).action == "falling_down"
    assert watching.classify(pairs, 30).probabilities.tolist() == [0, 0.6, 0.4]
    assert calm.classify(pairs, 30).action == "everyday" and calm.classify(pairs, 30).end == pytest.approx(3)
    assert watching.classify([(frame, nobody) for frame, _ in pairs], 30).action == "nobody seen"


def test_an_action_that_is_too_uncertain_is_everyday_life_but_an_alert_is_not(tmp_path, monkeypatch):
    save_model(tmp_path, LandmarkStream("pose", 3).eval(), {
        "architecture": {"name": "landmarks", "kind": "pose", "num_classes": 3, "frames": WINDOW, "size": 240},
        "classes": ["fan_self", "falling_down", "everyday"], "preprocessing": {}, "frames": {}, "clip": {}, "data": {},
        "scores": {}, "training": {}})
    pose = {name: np.full((30, *shape), 0.5, np.float32) for name, shape in TRACKERS["pose"].SHAPES.items()}
    recogniser = recognition.LandmarkRecogniser(tmp_path, alerts=["falling_down"], certainty=0.5)
    for share, action in (([0.45, 0.2, 0.35], "everyday"), ([0.55, 0.2, 0.25], "fan_self"),
                          ([0.3, 0.4, 0.3], "falling_down")):
        monkeypatch.setattr(recognition, "predict_windows", lambda *_, share=share: np.array([share]))
        assert recogniser.judge(pose, 1.5)[1] == action
