import json

import pytest
import torch
from conftest import HANDWASH_CLASSES, SHARED
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from health_actions.data.transforms import (
    AUGMENTATIONS,
    CORNERS,
    CROPS,
    SCALES,
    ChangeBackground,
    MultiScaleCrop,
    build_augmentation,
    build_input_transform,
    build_spatial,
    corner_box,
    mirror_class,
    place_frames,
    spread_frames,
)


def transform(change, clip: torch.Tensor, seed: int) -> torch.Tensor:
    """Apply a transform that draws by torch's global generator."""
    torch.manual_seed(seed)
    return change(clip)


def draw_from(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_noise(width: int, height: int) -> torch.Tensor:
    """A frame of noise: uint8 (3, height, width)."""
    return torch.randint(256, (3, height, width), generator=draw_from(0)).to(torch.uint8)


def draw_clip(frames=4, size=40) -> torch.Tensor:
    """The same noise in each frame."""
    return draw_noise(size, size).clip(30, 225).expand(frames, 3, size, size).clone()


@pytest.mark.parametrize(("colour", "mean", "std", "expected"), [
    ("rgb", [0.0, 0.5, 0.2], [1.0, 0.25, 0.5], [0, 2, 0]), ("bgr", [0.2, 0.5, 0.0], [1.0, 0.25, 0.5], [0, 2, 0]),
    # The mean of red, green and blue, which the code that trained the Kinetics-600 weights subtracted from BGR frames.
    ("bgr", [114.7748 / 255, 107.7354 / 255, 99.4750 / 255], [1 / 255] * 3, [51 - 114.7748, 255 - 107.7354, -99.4750])])
def test_frames_are_scaled_to_one_and_standardised_by_channel(colour, mean, std, expected):
    clip = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    values = build_input_transform(mean, std, colour)(clip)
    assert values.dtype == torch.float32 and values.shape == clip.shape
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", list(AUGMENTATIONS)[1:])
@pytest.mark.parametrize("seed", range(5))
def test_augmentations_change_every_frame_of_a_clip_in_the_same_way(name, seed):
    clip = draw_clip()
    changed = transform(build_augmentation(name), clip, seed)
    assert changed.shape == clip.shape and changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:1].expand_as(changed))
    assert not torch.equal(changed, clip)
    assert torch.equal(clip, draw_clip())  # the clip itself is kept


def test_translation_moves_a_bar_sideways_by_up_to_a_fifth_and_fills_with_black():
    bar, moves = torch.full((3, 3, 40, 40), 100, dtype=torch.uint8), set()
    bar[..., 18:22] = 255
    for seed in range(60):
        changed = transform(build_augmentation("translation"), bar, seed)
        move = int((changed[0, 0, 0] == 255).nonzero()[0]) - 18
        expected = torch.zeros(3, 3, 40, 40, dtype=torch.uint8)
        expected[..., max(0, move):40 + min(0, move)] = bar[..., max(0, -move):40 + min(0, -move)]
        assert torch.equal(changed, expected)
        moves.add(move)
    assert min(moves) == -8 and max(moves) == 8


def test_another_background_leaves_what_moves_as_it_is():
    frames = torch.full((9, 3, 20, 20), 100, dtype=torch.uint8)
    for number, frame in enumerate(frames):
        frame[:, :, number] = 255  # a bar that goes to the right
    torch.manual_seed(0)
    changed = ChangeBackground()(frames)
    assert changed.dtype == torch.uint8 and all((changed[number, :, :, number] == 255).all() for number in range(9))
    still = changed[:, :, :, 10:]
    assert (still != 100).float().mean() > 0.9 and (still == still[:1]).all()


def test_a_mirrored_clip_is_flipped_and_shows_the_other_hand():
    assert torch.equal(build_augmentation("mirror")(draw_clip()), draw_clip().flip(-1))
    sides = [(name, mirror_class(name, HANDWASH_CLASSES)) for name in HANDWASH_CLASSES]
    assert sides[:3] == [("step_1", "step_1"), ("step_2_left", "step_2_right"), ("step_2_right", "step_2_left")]
    for name, other in sides:
        assert name[:6] == other[:6] and (name == other) == (name in ("step_1", "step_3"))


@pytest.fixture(scope="module")
def published() -> dict:
    """What the published code of study B selects, where it is at hand."""
    file = SHARED / "published" / "transforms.json"
    if not file.is_file():
        pytest.skip("no facts of the published code beside this checkout (../shared/published/transforms.json)")
    return json.loads(file.read_text(encoding="utf-8"))


def draw_starts(length: int, window: int, stride: int, draws: int = 2000) -> set[int]:
    generator = draw_from(0)
    return {int(place_frames(length, window, stride, "random", generator)[0]) for _ in range(draws)}


# Study B: crops


@pytest.mark.parametrize("width, height, scale, corner, box", [
    (427, 240, 1.0, "c", (93, 0, 333, 240)),
    (427, 240, 0.9409, "c", (101, 8, 325, 232)),  # 225 pixels, in the centre 224
    (427, 240, 0.9409, "br", (202, 15, 427, 240)),
    (320, 240, 0.912673, "tr", (101, 0, 320, 219)),
    (240, 427, 0.88529281, "bl", (0, 215, 212, 427)),
])
def test_training_boxes_are_those_of_the_published_code(width, height, scale, corner, box):
    assert corner_box(width, height, scale, corner) == box


@pytest.mark.parametrize("frame, scaled, box", [
    ((427, 240), (199, 112), (44, 0, 156, 112)),  # 43.5 pixels go to 44
    ((320, 240), (149, 112), (18, 0, 130, 112)),  # 18.5 to 18
    ((240, 427), (112, 199), (0, 44, 112, 156)),
])
def test_test_crops_are_those_of_the_published_code(frame, scaled, box):
    frame, (left, top, right, bottom) = draw_noise(*frame), box
    scaled = functional.resize(frame, scaled[::-1])
    assert torch.equal(build_spatial("corner", 112)[1](frame), scaled[..., top:bottom, left:right])


def test_all_that_the_published_code_selects_is_selected(published):
    assert published["scales"] == pytest.approx(SCALES, abs=1e-12) and len(published["multi_scale_corner_crop"]) == 75
    for (width, height), scale, corner, box in published["multi_scale_corner_crop"]:
        assert corner_box(width, height, scale, corner) == tuple(box), (width, height, scale, corner)
    for frame, scaled, box in published["validation_scale_then_centre_crop"]:
        test_test_crops_are_those_of_the_published_code(frame, scaled, box)
    for how in ("centre", "begin"):
        for length, numbers in published[f"temporal_{how}"].items():
            assert (place_frames(int(length), 16, 2, how) + 1).tolist() == numbers, (how, length)
    for length, (first, last) in published["temporal_random_start_range"].items():
        assert draw_starts(int(length), 16, 2) == set(range(first - 1, last)), length


@given(st.integers(3, 500), st.integers(3, 500), st.sampled_from(SCALES), st.sampled_from(CORNERS))
def test_a_training_box_is_a_square_inside_the_picture(width, height, scale, corner):
    left, top, right, bottom = corner_box(width, height, scale, corner)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == bottom - top
    assert scale * min(width, height) - 2 <= right - left <= scale * min(width, height)


@pytest.mark.parametrize("call, message", [
    (lambda: corner_box(427, 240, 1.0, "left"), "corner of c, tl, tr, bl, br, .* found corner 'left'"),
    (lambda: corner_box(427, 240, 1.5, "c"), "scale in 0-1 .* scale 1.5"),
    (lambda: corner_box(427, 240, 0.0, "c"), "scale in 0-1 .* scale 0.0"),
    (lambda: corner_box(427, 1, 1.0, "c"), "2 pixels or more; found .* of 427 x 1 pixels"),
    (lambda: build_spatial("squash", 0), "2 pixels or more, found .* size 0"),
    (lambda: build_spatial("corner", 1), "2 pixels or more, found .* size 1"),
    (lambda: mirror_class("step_2_left", ["step_2_left"]), "a mirrored clip of step_2_left shows step_2_right, which"),
    (lambda: build_augmentation("translate"), "'translate'; known: none, translation, contrast, mirror"),
    (lambda: build_spatial("corners", 32), "the crop squash, corner, centre, random and .* found crop 'corners'"),
    (lambda: build_spatial("corner", 32, flip=1.5), "interval"),
    (lambda: place_frames(0, 16, 2), "numbers of 1 or more, found length 0, window 16, stride 2"),
    (lambda: place_frames(30, 0, 2), "found length 30, window 0"),
    (lambda: place_frames(30, 16, 0), "stride 0"),
    (lambda: place_frames(30, 16, 2, "end"), "one of random, centre, begin .* found 'end'"),
    (lambda: place_frames(30, 16, 2, "random"), "random needs a generator"),
    (lambda: spread_frames(30, 16, 2, 0), "found count 0"),
    (lambda: spread_frames(-1, 16, 2, 3), "length -1"),
])
def test_an_impossible_transform_is_an_error_that_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(8, 60), st.integers(8, 60), st.integers(2, 40), st.sampled_from([torch.uint8, torch.float32]),
       st.integers(0, 2**31))
def test_presets_give_squares_of_the_same_dtype_and_range_and_treat_all_frames_alike(width, height, size, dtype, seed):
    frame = torch.randint(60, 200, (3, height, width), generator=draw_from(seed)).to(dtype)
    clip = frame.expand(4, 3, height, width).clone()
    for change in (change for crop in ("squash", "corner", "random") for change in build_spatial(crop, size)):
        result = transform(change, clip, seed)
        assert result.shape == (4, 3, size, size) and result.dtype == dtype
        assert torch.equal(result, result[:1].expand_as(result))
        assert clip.min() - 1e-3 <= result.min() and result.max() <= clip.max() + 1e-3
        assert torch.equal(clip, frame.expand_as(clip))  # the clip itself is kept


def test_squash_scales_the_whole_frame_without_a_draw():
    frame = draw_noise(60, 40)
    expected = functional.resize(frame, [32, 32], functional.InterpolationMode.BILINEAR, antialias=True)
    assert all(torch.equal(change(frame), expected) for change in build_spatial("squash", 32))


def test_every_scale_and_corner_is_drawn():
    torch.manual_seed(0)
    crop, clip = MultiScaleCrop(16), torch.zeros(1, 3, 240, 427, dtype=torch.uint8)
    drawn = [crop.make_params([clip]) for _ in range(400)]
    assert {(params["scale"], params["corner"]) for params in drawn} == {(s, c) for s in SCALES for c in CORNERS}
    assert all(params["box"] == corner_box(427, 240, params["scale"], params["corner"]) for params in drawn)


def draw_boxes(crop: str, width: int, height: int, seed: int, **settings) -> list[dict]:
    """What a training crop draws for one frame, 200 times."""
    torch.manual_seed(seed)
    cut, frame = build_spatial(crop, 16, **settings)[0].transforms[0], draw_noise(width, height)[None]
    return [cut.make_params([frame]) for _ in range(200)]


@given(st.integers(3, 500), st.integers(3, 500), st.integers(0, 2**31))
def test_a_random_crop_is_a_square_of_a_scale_anywhere_in_the_frame(width, height, seed):
    for drawn in draw_boxes("random", width, height, seed)[:20]:
        left, top, right, bottom = drawn["box"]
        assert 0 <= left < right <= width and 0 <= top < bottom <= height and drawn["corner"] == ""
        assert right - left == bottom - top == int(min(width, height) * drawn["scale"])


def test_a_random_crop_reaches_every_edge_and_a_central_one_stays_in_the_middle():
    left, top, right, bottom = zip(*(drawn["box"] for drawn in draw_boxes("random", 30, 20, 0)))
    assert (min(left), min(top), max(right), max(bottom)) == (0, 0, 30, 20)
    central = draw_boxes("centre", 427, 240, 0)
    assert {drawn["box"] for drawn in central} == {corner_box(427, 240, scale, "c") for scale in SCALES}
    frame = draw_noise(60, 40)
    tested = [build_spatial(crop, 32)[1](frame) for crop in CROPS]
    assert all(torch.equal(frame, tested[0]) for frame in tested), "the kinds differ in training alone"


@pytest.mark.parametrize("crop", CROPS)
def test_scales_are_those_asked_for(crop):
    drawn = draw_boxes(crop, 427, 240, 0, scales=[1.0, 0.5])
    assert {box["scale"] for box in drawn} == {1.0, 0.5}
    assert {box["box"][2] - box["box"][0] for box in drawn} == {240, 120}


# Study B: frames


@pytest.mark.parametrize("how, length, numbers", [
    ("centre", 83, range(25, 57, 2)), ("centre", 31, range(0, 32, 2)), ("begin", 83, range(0, 32, 2)),
    ("begin", 5, [0, 2, 4, 1, 3, 0, 2, 4, 1, 3, 0, 2, 4, 1, 3, 0])])
def test_windows_are_those_of_the_published_code(how, length, numbers):
    assert place_frames(length, 16, 2, how).tolist() == list(numbers)


@pytest.mark.parametrize("length, last", [(5, 0), (32, 0), (33, 0), (34, 1), (83, 50)])
def test_random_starts_are_those_of_the_published_code(length, last):
    assert draw_starts(length, 16, 2) == set(range(last + 1))


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 8), st.sampled_from(["random", "centre", "begin"]),
       st.integers(0, 2**31))
def test_frames_lie_in_the_clip_and_differ_when_it_is_long_enough(length, window, stride, how, seed):
    frames = place_frames(length, window, stride, how, draw_from(seed))
    assert frames.shape == (window,) and frames.dtype == torch.int64
    assert 0 <= frames.min() and frames.max() < length
    if length >= window * stride:
        assert (frames.diff() == stride).all()  # never half of them twice
        assert frames[0] + window * stride <= length
    else:
        assert frames.tolist() == [number * stride % length for number in range(window)]


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 6), st.integers(1, 12))
def test_spread_windows_cover_the_clip_evenly(length, window, stride, count):
    frames = spread_frames(length, window, stride, count)
    assert frames.shape == (count, window) and frames.dtype == torch.int64
    assert 0 <= frames.min() and frames.max() < length
    if length < window * stride:
        assert (frames == place_frames(length, window, stride, "begin")).all()
    elif count == 1:
        assert torch.equal(frames[0], place_frames(length, window, stride, "centre"))
    else:
        assert frames[0, 0] == 0 and frames[-1, 0] + window * stride == length
        steps = frames[:, 0].diff()
        assert steps.min() >= 0 and steps.max() - steps.min() <= 1
        assert (frames.diff(dim=1) == stride).all()


@given(st.integers(40, 90), st.integers(20, 40), st.integers(0, 50))
def test_crops_of_the_middle_square_never_leave_it(width, height, seed):
    clip = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    left = (width - height) // 2
    clip[..., left:left + height + (width - height) % 2] = 255
    training, _ = build_spatial("corner", 16, middle_square=True)
    assert transform(training, clip, seed).min() >= 200, "nothing but the middle, give or take half a pixel"
