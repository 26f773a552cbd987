"""Recognition of videos: the answers of the studies' tests, timelines, events; models of unknown origin."""

import json
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import CLASSES, draw_numbers, draw_square, write_video
from random_models import save_random_model

from health_actions.analysis.recognition import NONE, Answer, Recogniser, view_window
from health_actions.analysis.rejection import MahalanobisDetector
from health_actions.analysis.studies import NotTrained, choose_model_folder, find_best, load_recogniser
from health_actions.analysis.timeline import answer_video, build_timeline, find_events
from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.data.frames import open_clip, read_index
from health_actions.data.video import TooLong, UnreadableVideo
from health_actions.learning.scores import predict_clips
from health_actions.models.weights import load_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random weights: a network of each study."""
    folder = tmp_path_factory.mktemp("models")
    save_random_model(folder / "handwash" / "fold_1", "cnn_lstm_custom", "handwash", lstm_width=16)
    save_random_model(folder / "ntu" / "fold_1", "squeezenet", "ntu")
    return folder


@pytest.mark.parametrize("study", ["handwash", "ntu"])
def test_a_video_gets_the_answer_of_the_studys_test(study, models, data_folder, frames_folder, tmp_path):
    frames = frames_folder
    if study == "ntu":  # this study stores all frames
        frames = tmp_path / "whole"
        extract_frames(data_folder, frames, find_clips(data_folder, CLASSES), height=48, quality=95, workers=1)
    model, card = load_model(models / study / "fold_1")
    clips = read_index(frames).assign(fold=1)
    expected = predict_clips(model, card, clips, frames_folder=frames)[CLASSES].to_numpy()
    recogniser = Recogniser(models / study / "fold_1")
    answers = [recogniser.recognise(data_folder / path) for path in clips["path"]]
    found = np.array([answer.probabilities for answer in answers])
    np.testing.assert_allclose(found, expected, atol=0.02)  # the stored frames are JPEG pictures
    assert [answer.action for answer in answers] == [CLASSES[number] for number in found.argmax(1)]
    assert all(len(answer.frames) == 8 and 0 <= answer.start < answer.end < 1.4 for answer in answers)


def test_the_frames_of_a_window_are_those_of_the_cards_sampling(models):
    handwash, ntu = (Recogniser(models / study / "fold_1") for study in ("handwash", "ntu"))
    assert handwash.choose_frames(40).tolist() == list(range(4, 36, 4)), "of 0, 4, ..., 36 the eight in the middle"
    assert handwash.choose_frames(11).tolist() == list(range(1, 9)), "a short clip is sampled at a smaller distance"
    assert ntu.choose_frames(40).tolist() == list(range(12, 28, 2))


def test_a_clip_that_is_too_short_or_too_long_is_refused(models, tmp_path):
    short = write_video(tmp_path / "short.mp4", draw_square(frames=6))
    for study, words in (("handwash", "too short: 6 frames at 30 per second, at least 10"),
                         ("ntu", "too short: 6 frames at 30 per second, at least 8")):
        with pytest.raises(UnreadableVideo, match=words):
            Recogniser(models / study / "fold_1").recognise(short)
    long = write_video(tmp_path / "long.mp4", draw_square(frames=64), fps=2)
    with pytest.raises(TooLong, match="too long: more than 30 seconds"):
        Recogniser(models / "ntu" / "fold_1").recognise(long)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_timeline_has_a_window_every_half_second_whatever_the_batch(models, tmp_path, batch):
    video = write_video(tmp_path / "long.mp4", draw_numbers(40).repeat(3, axis=0))
    recogniser = Recogniser(models / "ntu" / "fold_1")
    answers = list(recogniser.watch(video, every=0.5, batch=batch))
    # 60 frames are used, every second one; windows of 8, one each 7 or 8 of them.
    starts = [round(answer.start * 15) for answer in answers]
    assert starts == list(range(0, 60 - 8 + 1, 8)) and all(answer.end <= 4.001 for answer in answers)
    alone = list(recogniser.watch(video, every=0.5, batch=1))
    np.testing.assert_allclose([answer.probabilities for answer in answers],
                               [answer.probabilities for answer in alone], atol=1e-5)


def test_a_clock_that_jumps_gives_the_windows_of_the_whole_video(models, tmp_path):
    paths = [tmp_path / "whole.mkv", tmp_path / "jump.mkv"]
    for path, leap in zip(paths, (0, 3600), strict=True):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for number, picture in enumerate(draw_square(frames=90)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number + 30 * leap * (number >= 45), Fraction(1, 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    recogniser = Recogniser(models / "ntu" / "fold_1")
    whole, jump = (list(recogniser.watch(path)) for path in paths)
    assert [(answer.start, answer.end) for answer in jump] == [(answer.start, answer.end) for answer in whole]
    for one, other in zip(whole, jump, strict=True):
        np.testing.assert_allclose(one.frames.astype(int), other.frames, atol=9)  # encoded apart; the square moves
    first, second = (recogniser.recognise(path).frames.astype(int) for path in paths)
    np.testing.assert_allclose(first, second, atol=9)


def test_a_video_shorter_than_a_window_is_looped(models, tmp_path):
    video = write_video(tmp_path / "short.mp4", draw_square(frames=5))
    [answer] = Recogniser(models / "ntu" / "fold_1").watch(video)
    assert len(answer.frames) == 8 and answer.end == pytest.approx(0.2)
    np.testing.assert_array_equal(answer.frames[0], answer.frames[3])


def test_a_stored_window_can_be_viewed_in_any_size_and_changed(models, frames_folder, index):
    _, card = load_model(models / "handwash" / "fold_1")
    clip = index["clip"][0]
    stored = open_clip(frames_folder, clip)[range(1, 9)]
    seen = view_window(frames_folder, clip, card)
    assert seen.shape == (8, 32, 32, 3) and abs(seen.mean() - stored.mean()) < 2
    assert view_window(frames_folder, clip, card, size=64).shape == (8, 64, 64, 3)
    backwards = view_window(frames_folder, clip, card, change=lambda frames, name, numbers: frames[numbers.flip(0) - 1])
    np.testing.assert_array_equal(backwards, seen[::-1])


def test_events_are_stretches_of_the_same_action():
    shares = [(0.8, 0.2), (0.6, 0.4), (0.5, 0.5), (0.1, 0.9), (0.9, 0.1)]
    answers = [Answer(start, start + 2.0, None, np.array(share), None, action)
               for start, (share, action) in enumerate(zip(shares, ["a", "a", NONE, "b", "a"], strict=True))]
    timeline = build_timeline(answers, ["a", "b"])
    assert timeline[["start", "end"]].values.tolist() == [[0, 1.5], [1.5, 2.5], [2.5, 3.5], [3.5, 4.5], [4.5, 6]]
    events = find_events(timeline, ["a", "b"])
    assert events["action"].tolist() == ["a", "b", "a"] and events["windows"].tolist() == [2, 1, 1]
    assert events[["start", "end"]].values.tolist() == [[0, 2.5], [3.5, 4.5], [4.5, 6]], "no time counts twice"
    assert events["confidence"].tolist() == pytest.approx([0.7, 0.9, 0.9])
    assert find_events(build_timeline([], ["a", "b"]), ["a", "b"]).empty


class Listed:
    """A recogniser of given answers; a video is too long where it has several."""

    classes = ["a", "b"]

    def __init__(self, *actions: str):
        self.answers = [Answer(start, start + 2.0, None, np.array([0.8, 0.2] if action == "a" else [0.3, 0.7]), None,
                               action) for start, action in enumerate(actions)]

    def watch(self, path):
        yield from self.answers

    def recognise(self, path):
        if len(self.answers) > 1:
            raise TooLong("too long: more than 30 seconds")
        return self.answers[0]


def test_a_long_video_is_the_action_of_most_of_its_time():
    row = answer_video(Listed("a", "b", "b", "b", NONE), "x.mp4")
    assert row["action"] == "b" and row["error"] is None  # 3 of 6 seconds, from 1.5 to 4.5
    assert [(event["action"], event["start"]) for event in row["events"]] == [("a", 0), ("b", 1.5)]
    assert row["events"][1]["end"] == 4.5
    assert row["probability"] == row["probabilities"]["b"] == pytest.approx((1.5 * 0.2 + 4.5 * 0.7) / 6)
    assert answer_video(Listed(NONE, NONE, "a"), "x.mp4")["action"] == NONE
    short = answer_video(Listed("a"), "x.mp4")
    assert short["action"] == "a" and short["probability"] == 0.8 and short["events"] is None
    assert [event["action"] for event in answer_video(Listed("a"), "x.mp4", timeline=True)["events"]] == ["a"]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A project's folder with three folds of one network, two starts of another, and the note of the best."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "build" / "ntu"
    for fold, score in ((1, 0.5), (2, 0.9), (10, 0.7)):
        save_random_model(folder / "models" / "squeezenet" / "scratch" / f"fold_{fold}", "squeezenet", "ntu", fold=fold,
                          score=score)
    for start in ("pretrained", "scratch"):
        save_random_model(folder / "models" / "shufflenetv2" / start / "fold_1", "shufflenetv2", "ntu", width_mult=0.25)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "best.json").write_text('{"model": "squeezenet/scratch", "validation": 0.9}')
    return root


def test_the_best_model_and_of_it_the_best_fold_is_chosen(build):
    assert find_best(build / "build" / "ntu") == "squeezenet/scratch"
    models = build / "build" / "ntu" / "models"
    assert choose_model_folder(build, "ntu") == models / "squeezenet" / "scratch" / "fold_2"
    assert choose_model_folder(build, "ntu", "shufflenetv2") == models / "shufflenetv2" / "pretrained" / "fold_1"
    assert load_recogniser(build, "ntu", "best").detector is None


def test_a_model_that_is_missing_is_reported_with_what_there_is(build):
    with pytest.raises(NotTrained, match="no model 'squeeze' of study ntu; there are: shufflenetv2/pretrained, "):
        choose_model_folder(build, "ntu", "squeeze")
    with pytest.raises(NotTrained, match="run make repro first"):
        choose_model_folder(build, "handwash")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_damaged_note_of_the_best_model_is_reported(tmp_path, text):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "best.json").write_text(text)
    with pytest.raises(ValueError, match="best.json names no model .*: delete it and run make repro"):
        find_best(tmp_path)


def test_a_detector_beside_the_best_model_is_used_unless_that_is_declined(build):
    width = Recogniser(choose_model_folder(build, "ntu")).model.classifier[1].in_channels
    detector = MahalanobisDetector(np.zeros((1, width), np.float32), np.eye(width, dtype=np.float32), 7.0)
    detector.save(build / "build" / "ntu" / "reject" / "squeezenet" / "scratch" / "fold_2" / "detector.safetensors")
    assert load_recogniser(build, "ntu", "best").detector.threshold == 7
    assert load_recogniser(build, "ntu", "best", reject=False).detector is None
    assert load_recogniser(build, "ntu", "shufflenetv2").detector is None


# ---- model folders of unknown origin

def refuse(call, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "words"), [
    (None, "fold_1 is no usable model folder: ."),  # a card that is nested too deeply
    ({"architecture": {"pretrained": "/etc/passwd"}}, "its card asks for weights from elsewhere"),
    ({"architecture": {"name": "../../squeezenet"}}, "unknown model '../../squeezenet'"),
    ({"architecture": {"num_classes": 10**13}}, "no usable model folder"),
    ({"clip": None}, "not complete"), ({"frames": None}, "not complete"), ({"frames": {}}, "not complete"),
    ({"classes": None, "preprocessing": {}}, "not complete")])
def test_a_card_opens_no_other_file_and_what_it_lacks_is_reported(models, tmp_path, change, words):
    shutil.copytree(models / "ntu" / "fold_1", tmp_path / "fold_1")
    card = json.loads((tmp_path / "fold_1" / "card.json").read_text())
    for key, value in (change or {}).items():
        card[key] = card[key] | value if value else value
    (tmp_path / "fold_1" / "card.json").write_text(json.dumps(card) if change else "[" * 100_000)
    refuse(lambda: Recogniser(tmp_path / "fold_1"), words)


def test_a_fold_elsewhere_is_not_followed(tmp_path):
    folder = tmp_path / "build" / "ntu" / "models" / "squeezenet" / "fold_1"
    save_random_model(folder, "squeezenet", "ntu", fold="/../../elsewhere")
    refuse(lambda: choose_model_folder(tmp_path, "ntu", "squeezenet"), "'fold_/../../elsewhere' leads out of ")
