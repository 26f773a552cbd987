"""Landmarks of hands and bodies; on real clips where they are at hand."""

import cv2
import numpy as np
import pytest
from conftest import ROOT, SHARED

from health_actions.data.video import stream_frames
from health_actions.models import landmarks
from health_actions.models.landmarks import Crop, Detector, HandTracker, PoseTracker, detect_landmarks, make_exact

KINDS = {"hands": HandTracker, "pose": PoseTracker}
BLANK = np.zeros((120, 160, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def at_the_root():
    """Networks are found from the project's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


def read(clip: str, frames: int, start: int = 0) -> list[np.ndarray]:
    """Frames of a real clip, 240 pixels high."""
    path = SHARED / "clips" / clip
    if not path.is_file():
        pytest.skip(f"no real clips beside this checkout (../shared/clips/{clip})")
    return list(stream_frames(path, height=240, indices=range(start, start + frames)))


def count(found: dict[str, np.ndarray]) -> np.ndarray:
    """Hands or people in each frame."""
    return np.isfinite(found["presence"]).reshape(len(found["presence"]), -1).sum(axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("height, width", [(120, 160), (1, 1), (3, 500), (2160, 3840)])
def test_nothing_is_found_where_there_is_nothing(kind, height, width):
    found = detect_landmarks(np.zeros((1, height, width, 3), np.uint8), kind)
    assert {name: values.shape for name, values in found.items()} == {
        name: (1, *shape) for name, shape in KINDS[kind].SHAPES.items()}
    assert all(np.isnan(values).all() and values.dtype == np.float32 for values in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_no_frames_give_no_rows(kind):
    assert {name: values.shape for name, values in detect_landmarks(iter([]), kind).items()} == {
        name: (0, *shape) for name, shape in KINDS[kind].SHAPES.items()}


def test_a_crop_puts_points_back_where_they_came_from():
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[30:33, 120:123] = 255
    crop = Crop(np.array([110.0, 45.0]), 80.0, 0.7)
    square = crop.cut(frame, 64)[0, :, :, 0]
    row, column = np.unravel_index(square.argmax(), square.shape)
    np.testing.assert_allclose(crop.place(np.array([[column / 64, row / 64, 0.25]])), [[121, 31, 20]], atol=1.5)
    assert square.shape == (64, 64) and square.max() == 1


@pytest.mark.parametrize("scores, expected", [([9, 8, -9], [[3.0, 4.0]]), ([9, -9, 8], [[2.9, 4], [130, 4]])])
def test_boxes_that_overlap_become_one(monkeypatch, scores, expected):
    boxes = np.array([[2.9, 4, 10, 10], [3.1, 4, 10, 10], [130, 4, 10, 10]], np.float32)
    monkeypatch.setattr(landmarks, "open_network", lambda name: lambda image: [boxes, np.array(scores)[:, None]])
    detector = Detector("none", 192, {192: 3}, 0)
    detector.cells[:] = 0
    found = [points.mean(axis=0) for points in detector(np.zeros((192, 192, 3), np.uint8))]
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_a_point_moves_to_the_peak_of_its_heatmap():
    heatmaps = np.full((3, 64, 64), -50, np.float32)
    heatmaps[:, 20, 12] = 50
    points = np.array([[10.5, 22.5], [40.5, 22.5], [-1, 20]]) / 64
    np.testing.assert_allclose(make_exact(points, heatmaps) * 64, [[12, 20], [40.5, 22.5], [-1, 20]])


def test_hands_are_found_while_they_are_washed_and_lost_in_the_dark():
    frames = read("handwash/Step_5_Left/HandWash_005_A_07_G_01.mp4", 24)
    found = detect_landmarks([*frames, BLANK, frames[0]])
    assert (count(found)[:24] > 0).mean() > 0.75 and count(found)[24] == 0 < count(found)[25]
    seen = np.isfinite(found["presence"])
    assert (found["presence"][seen] >= 0.5).all() and np.isfinite(found["world"][seen]).all()
    assert np.isfinite(found["image"]).all(axis=(2, 3)).tolist() == seen.tolist()
    lengths = np.linalg.norm(found["world"][seen][:, 9] - found["world"][seen][:, 0], axis=1)
    assert 0.05 < np.median(lengths) < 0.13, "metres from the wrist to the middle finger"


def test_a_hand_with_its_back_up_and_the_thumb_to_the_right_is_a_left_one():
    found = detect_landmarks(read("handwash/Step_2_Left/HandWash_005_A_02_G_01.mp4", 6))
    assert (np.isfinite(found["presence"]).argmax(axis=1) == 0).all() and np.nanmax(found["handedness"]) < 0.5
    assert (found["image"][:, 0, 4, 0] > found["image"][:, 0, 17, 0]).all()


def test_mirrored_frames_swap_left_and_right():
    frames = read("handwash/Step_5_Left/HandWash_005_A_07_G_01.mp4", 16)
    found, mirrored = detect_landmarks(frames), detect_landmarks([frame[:, ::-1] for frame in frames])
    image, world = mirrored["image"][:, ::-1] * [-1, 1, 1] + [1, 0, 0], mirrored["world"][:, ::-1] * [-1, 1, 1]
    both = np.isfinite(found["presence"]) & np.isfinite(image).all(axis=(2, 3))
    assert both.any(axis=1).mean() > 0.5
    assert np.median(abs(image - found["image"])[both]) < 0.02 and np.median(abs(world - found["world"])[both]) < 0.01
    assert np.median(abs(1 - mirrored["handedness"][:, ::-1] - found["handedness"])[both]) < 0.2


def test_a_body_is_found_while_it_falls():
    frames = read("falls/fall/subject_1_14.mp4", 24, start=20)
    found = detect_landmarks(frames, "pose")
    assert count(found).mean() > 0.9
    nose, hip = found["image"][:, 0, 1], found["image"][:, 23:25, 1].mean(axis=1)
    assert (nose < hip)[:8].all() and 0 < np.nanmedian(found["visibility"]) <= 1


def test_of_two_people_one_is_followed_and_size_does_not_matter():
    frame = read("falls/fall/subject_1_14.mp4", 1, start=20)[0]
    one = detect_landmarks([frame], "pose")
    large = detect_landmarks([cv2.resize(frame, None, fx=9, fy=9)], "pose")
    two = detect_landmarks([np.concatenate([frame, frame], axis=1)] * 3, "pose")
    assert np.median(abs(large["image"] - one["image"])[0, :, :2]) < 0.02
    assert count(two).tolist() == [1, 1, 1] and np.ptp(two["image"][:, 0, 0]) < 0.1
