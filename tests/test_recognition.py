"""Videos that are handed in: answers as in the studies' tests, timelines, events, and clips of something else."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, draw_numbers, draw_square, write_video
from hypothesis import given
from hypothesis import strategies as st

from health_actions.analysis.recognition import (
    NONE,
    Familiarity,
    Recogniser,
    Sampling,
    find_events,
    find_model,
    read_sampling,
    tabulate,
)
from health_actions.analysis.rejection import (
    choose_largest,
    halve,
    learn_familiarity,
    spread_clips,
    take_features,
    tell_rates,
)
from health_actions.data.extraction import extract_archives
from health_actions.data.frames import read_index
from health_actions.data.video import UnreadableVideo
from health_actions.learning.evaluation import predict_clips
from health_actions.models import build_model, load_published
from health_actions.models.folder import load_model, save_model
from health_actions.models.starts import read_start


def make_card(name: str, *, stride: int | None, window: int = 8, **options) -> dict:
    return {"architecture": {"name": name, "num_classes": 3, "frames": window, "size": 32, **options},
            "classes": CLASSES, "preprocessing": {"mean": [0.45] * 3, "std": [0.225] * 3, "colour": "rgb"},
            "clip": {"size": 32, "window": window, "test_window": "centre", "stride": stride},
            "training": {"architecture": name, "precision": "32-true", "fold": 1}, "data": {"sha256": "x"},
            "scores": {"validation_clip_top1": 0.5}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random weights: a network of each study."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, card in (("a", make_card("cnn_lstm_custom", stride=None, lstm_width=16)),
                       ("b", make_card("squeezenet", stride=2))):
        save_model(folder / name / "fold_1", build_model(**card["architecture"]), card)
    return folder


@pytest.fixture(scope="module")
def archives(data_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("archives")
    extract_archives(data_folder, output, CLASSES, height=48, quality=100, processes=1)
    return output


@pytest.mark.parametrize(("study", "tolerance"), [("a", 1e-5), ("b", 0.02)])  # b's frames were JPEG pictures meanwhile
def test_a_video_gets_the_answer_of_the_studys_test(study, tolerance, models, data_folder, frames_folder, archives):
    frames = frames_folder if study == "a" else archives
    model, card = load_model(models / study / "fold_1")
    clips = read_index(frames).assign(fold=1)
    expected = predict_clips(model, card, clips, frames_folder=frames)[CLASSES].to_numpy()
    recogniser = Recogniser(models / study / "fold_1", frames=frames)
    answers = [recogniser.recognise(data_folder / path) for path in clips["path"]]
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=tolerance)
    assert [answer.action for answer in answers] == [CLASSES[number] for number in expected.argmax(1)]
    assert all(answer.frames.shape[0] == 8 and answer.start < answer.end for answer in answers)


def test_the_sampling_is_that_of_the_frames(models, frames_folder, archives):
    cards = {name: load_model(models / name / "fold_1")[1] for name in "ab"}
    assert read_sampling(cards["a"], frames_folder) == Sampling(4, length=10)
    assert read_sampling(cards["b"], archives) == Sampling(2, height=48)


def test_a_clip_that_is_too_short_is_told(models, tmp_path):
    short = write_video(tmp_path / "short.mp4", draw_square(frames=6))
    for name, sampling, words in (("a", Sampling(4, length=10), "too short: 6 frames, at least 10"),
                                  ("b", Sampling(2, height=48), "too short: 6 frames, at least 8")):
        with pytest.raises(UnreadableVideo, match=words):
            Recogniser(models / name / "fold_1", sampling=sampling).recognise(short)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_timeline_has_a_window_every_so_often_whatever_the_batch(models, tmp_path, batch):
    video = write_video(tmp_path / "long.mp4", draw_numbers(40).repeat(3, axis=0))
    recogniser = Recogniser(models / "b" / "fold_1", sampling=Sampling(2, height=48))
    answers = list(recogniser.watch(video, every=0.5, batch=batch))
    # 60 frames are seen, every second one; windows of 8, one each 7 or 8 of them.
    starts = [round(answer.start * 15) for answer in answers]
    assert starts == list(range(0, 60 - 8 + 1, 8)) and all(answer.end <= 4.001 for answer in answers)
    alone = list(recogniser.watch(video, every=0.5, batch=1))
    np.testing.assert_allclose([answer.probabilities for answer in answers],
                               [answer.probabilities for answer in alone], atol=1e-5)


def test_a_video_shorter_than_a_window_is_looped(models, tmp_path):
    video = write_video(tmp_path / "short.mp4", draw_square(frames=5))
    [answer] = Recogniser(models / "b" / "fold_1", sampling=Sampling(2, height=48)).watch(video)
    assert len(answer.frames) == 8 and answer.end == pytest.approx(0.2)
    np.testing.assert_array_equal(answer.frames[0], answer.frames[3])


def test_events_are_stretches_of_the_same_action():
    timeline = pd.DataFrame({
        "start": [0.0, 1, 2, 3, 4], "end": [2.0, 3, 4, 5, 6], "action": ["a", "a", NONE, "b", "a"],
        "a": [0.8, 0.6, 0.5, 0.1, 0.9], "b": [0.2, 0.4, 0.5, 0.9, 0.1]})
    events = find_events(timeline, ["a", "b"])
    assert events["action"].tolist() == ["a", "b", "a"] and events["windows"].tolist() == [2, 1, 1]
    assert events[["start", "end"]].values.tolist() == [[0, 3], [3, 5], [4, 6]]
    assert events["confidence"].tolist() == pytest.approx([0.7, 0.9, 0.9])
    assert find_events(timeline, ["a", "b"], shortest=2.5)["action"].tolist() == ["a"]
    assert find_events(tabulate([], ["a", "b"]), ["a", "b"]).empty


def test_the_fold_whose_validation_was_best_is_used(models, tmp_path):
    for fold, score in ((1, 0.5), (2, 0.9), (3, 0.7)):
        card = make_card("squeezenet", stride=2)
        card["training"]["fold"], card["scores"]["validation_clip_top1"] = fold, score
        save_model(tmp_path / f"fold_{fold}", build_model(**card["architecture"]), card)
    assert find_model(tmp_path).name == "fold_2"
    with pytest.raises(FileNotFoundError, match="make repro trains it"):
        find_model(tmp_path / "nothing")


# ---- none of these


def test_a_clip_far_from_the_training_clips_is_none_of_the_classes(models, data_folder, archives, tmp_path):
    index = read_index(archives)
    recogniser = Recogniser(models / "b" / "fold_1", frames=archives)
    clips, features = take_features(recogniser, index, data_folder)
    familiarity = learn_familiarity(features, list(clips["class"]), CLASSES)
    largest = float(familiarity.measure(features).max()) * 1.01
    Familiarity(familiarity.means, familiarity.precision, largest).save(tmp_path / "familiarity.safetensors")
    read = Familiarity.load(tmp_path / "familiarity.safetensors")
    assert read.largest == pytest.approx(largest)
    careful = Recogniser(models / "b" / "fold_1", frames=archives, familiarity=read)
    assert careful.recognise(data_folder / index["path"][0]).action in CLASSES
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 96, 3), dtype=np.uint8)
    assert careful.recognise(write_video(tmp_path / "noise.mp4", noise, crf=1)).action == NONE


def test_distances_are_those_of_mahalanobis():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.2])
    labels = ["a", "b"] * 30
    familiarity = learn_familiarity(features, labels, ["a", "b", "never seen"])
    assert len(familiarity.means) == 2
    away = features[:, None].numpy() - familiarity.means.numpy()
    by_hand = np.einsum("nci,ij,ncj->nc", away, familiarity.precision.numpy(), away).min(1)
    np.testing.assert_allclose(familiarity.measure(features).numpy(), by_hand, rtol=1e-4, atol=1e-4)
    # A step along the narrow direction is a longer way than one along the wide direction.
    near, far = (familiarity.means[:1] + torch.tensor([step]) for step in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    assert familiarity.measure(near) < familiarity.measure(far)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_no_other_threshold_keeps_more_known_and_rejects_more_unknown_clips(known, unknown):
    scores = pd.DataFrame({"kind": ["known"] * len(known) + ["other"] * len(unknown), "distance": known + unknown})

    def gain(cut: float) -> float:
        return np.mean(np.array(known) <= cut) + np.mean(np.array(unknown) > cut)

    chosen = choose_largest(scores)
    assert gain(chosen) == pytest.approx(max(gain(cut) for cut in known + unknown))


def test_rates_count_what_is_wrong():
    scores = pd.DataFrame({"kind": ["known"] * 4 + ["other"] * 2, "distance": [1, 2, 3, 9, 4, 8]})
    rates = tell_rates(scores, 5.0).set_index("kind")
    assert rates.loc["known", ["mistake", "clips", "wrong"]].tolist() == ["rejected", 4, 1]
    assert rates.loc["other", ["mistake", "clips", "wrong"]].tolist() == ["accepted", 2, 1]
    assert rates.loc["other", "auroc"] == pytest.approx(6 / 8)
    assert choose_largest(scores[scores["kind"] == "known"]) == 9, "without others all known ones are kept"
    with pytest.raises(ValueError, match="needs clips that are known"):
        choose_largest(scores[scores["kind"] != "known"])


def test_people_choose_the_threshold_or_test_it_and_never_both():
    clips = pd.DataFrame({
        "kind": ["many"] * 6 + ["one"] * 4, "recording": ["p1", "p1", "p2", "p2", "p3", "p3"] + ["q"] * 4,
        "class": ["a", "b"] * 3 + ["a", "a", "b", "b"]})
    parts = halve(clips)
    assert (parts[parts["kind"] == "many"].groupby("recording")["part"].nunique() == 1).all()
    assert (parts[parts["kind"] == "one"].groupby("class")["part"].nunique() == 1).all()
    assert (parts.groupby("kind")["part"].nunique() == 2).all()
    assert spread_clips(clips, 4)["class"].tolist() == ["a", "b", "a", "b"]


# ---- models that somebody else made


class Code:
    """What runs when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def refuse(call, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_code_in_weights_is_not_run(models, tmp_path, form):
    shutil.copytree(models / "b" / "fold_1", tmp_path / "fold_1")
    content = {"state_dict": {"a": Code(tmp_path / "ran")}}
    for file in (tmp_path / "fold_1" / "weights.safetensors", tmp_path / "start.pth", tmp_path / "x.safetensors"):
        file.write_bytes(pickle.dumps(content)) if form == "pickle" else torch.save(content, file)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(content))
    assert (tmp_path / "ran").exists(), "it would run"
    (tmp_path / "ran").unlink()
    card = make_card("squeezenet", stride=2)["architecture"]
    refuse(lambda: load_model(tmp_path / "fold_1"), "fold_1 is no usable model folder: ")
    refuse(lambda: load_published(build_model(**card), tmp_path / "fold_1"), "fold_1 is no usable model folder: ")
    refuse(lambda: load_published(build_model(**card), tmp_path / "start.pth"), "not a checkpoint that can be read saf")
    refuse(lambda: build_model(**card, pretrained=tmp_path / "start.pth"), "not a checkpoint that can be read safely")
    refuse(lambda: Familiarity.load(tmp_path / "x.safetensors"), "x.safetensors tells no familiarity: ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"architecture": {"pretrained": "/etc/passwd"}}, "its card asks for weights from elsewhere"),
    ({"architecture": {"name": "../../squeezenet"}}, "unknown model '../../squeezenet'"),
    ({"architecture": {"num_classes": 10**13}}, "no usable model folder"),
    ({"clip": None}, "not complete"),
    ({"classes": None, "preprocessing": {}}, "not complete")])
def test_a_card_opens_no_other_file_and_what_it_lacks_is_told(models, tmp_path, change, words):
    shutil.copytree(models / "b" / "fold_1", tmp_path / "fold_1")
    card = json.loads((tmp_path / "fold_1" / "card.json").read_text())
    for key, value in change.items():
        card[key] = card[key] | value if value else value
    (tmp_path / "fold_1" / "card.json").write_text(json.dumps(card))
    refuse(lambda: Recogniser(tmp_path / "fold_1", sampling=Sampling(2, height=48)), words)


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", "[" * 100_000, "\xff", '{"architecture": 7}'])
def test_a_card_that_is_none_is_told_in_one_line(models, tmp_path, text):
    shutil.copytree(models / "b" / "fold_1", tmp_path / "fold_1")
    (tmp_path / "fold_1" / "card.json").write_text(text, encoding="latin-1")
    refuse(lambda: load_model(tmp_path / "fold_1"), "fold_1 is no usable model folder: .")


def test_a_fold_or_start_elsewhere_is_not_followed(models, tmp_path):
    shutil.copytree(models / "b" / "fold_1", tmp_path / "fold_1")
    card = json.loads((tmp_path / "fold_1" / "card.json").read_text())
    card["training"]["fold"] = "/../../elsewhere"
    (tmp_path / "fold_1" / "card.json").write_text(json.dumps(card))
    refuse(lambda: find_model(tmp_path), "'fold_/../../elsewhere' leads out of ")
    for weights in ("../../secret", "/etc/passwd"):
        (tmp_path / "start.json").write_text(json.dumps({"weights": weights}))
        refuse(lambda: read_start(tmp_path), "leads out of the project")
    (tmp_path / "start.json").write_text("[]")
    refuse(lambda: read_start(tmp_path), "start.json does not tell weights")
