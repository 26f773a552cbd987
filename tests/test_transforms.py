import json

import pytest
import torch
from conftest import HANDWASH_CLASSES, SHARED
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.transforms import (
    ACTIVITYNET,
    AUGMENTATIONS,
    CORNERS,
    SCALES,
    CentreCrop,
    MultiScaleCornerCrop,
    build_augmentation,
    build_crops,
    build_input_transform,
    centre_box,
    corner_box,
    mirror_class,
    place_frames,
    place_window,
    spread_frames,
)
from health_actions.learning.datasets import draw_augmentation


def draw_clip(frames=4, size=40) -> torch.Tensor:
    """The same noise in each frame."""
    frame = torch.randint(30, 226, (3, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return frame.expand(frames, 3, size, size).clone()


def test_frames_are_scaled_to_one_and_standardised_by_channel():
    clip = torch.stack([torch.full((2, 2), value) for value in (0, 255, 51)]).to(torch.uint8)[None]
    values = build_input_transform([0.0, 0.5, 0.2], [1.0, 0.25, 0.5])(clip)
    assert values.dtype == torch.float32 and values.shape == clip.shape
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([0.0, 2.0, 0.0]))


def test_bgr_turns_the_channels_round_and_keeps_mean_and_deviation():
    clip = draw_clip()
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = build_input_transform(mean, std)(clip[:, [2, 1, 0]])
    assert torch.equal(build_input_transform(mean, std, "bgr")(clip), expected)
    assert not torch.equal(build_input_transform(mean, std)(clip), expected)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
@pytest.mark.parametrize("seed", range(5))
def test_augmentations_change_every_frame_of_a_clip_in_the_same_way(name, seed):
    clip = draw_clip()
    torch.manual_seed(seed)
    changed = build_augmentation(name)(clip)
    assert changed.shape == clip.shape and changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:1].expand_as(changed))
    assert not torch.equal(changed, clip)
    assert torch.equal(clip, draw_clip())  # the clip itself is kept


def test_no_augmentation_is_none():
    assert build_augmentation("none") is None


def draw_bar() -> torch.Tensor:
    """Three frames of 40 pixels: a white bar in columns 18 to 21 on grey."""
    clip = torch.full((3, 3, 40, 40), 100, dtype=torch.uint8)
    clip[..., 18:22] = 255
    return clip


@pytest.mark.parametrize("seed", range(10))
def test_translation_moves_a_bar_sideways_by_up_to_a_fifth_and_lets_black_in(seed):
    torch.manual_seed(seed)
    changed = build_augmentation("translation")(draw_bar())
    first = int((changed[0, 0, 0] == 255).nonzero()[0])
    move = first - 18
    expected = torch.zeros(3, 3, 40, 40, dtype=torch.uint8)
    expected[..., max(0, move):40 + min(0, move)] = draw_bar()[..., max(0, -move):40 + min(0, -move)]
    assert abs(move) <= 8
    assert torch.equal(changed, expected)


def test_translation_goes_both_ways_and_up_to_a_fifth():
    torch.manual_seed(0)
    change = build_augmentation("translation")
    firsts = [int((change(draw_bar())[0, 0, 0] == 255).nonzero()[0]) for _ in range(60)]
    assert min(firsts) == 18 - 8 and max(firsts) == 18 + 8


@pytest.mark.parametrize("seed", range(5))
def test_contrast_keeps_the_mean_and_changes_the_spread_by_up_to_a_half(seed):
    torch.manual_seed(seed)
    clip, changed = draw_clip().float(), build_augmentation("contrast")(draw_clip()).float()
    assert 0.45 < changed.std() / clip.std() < 1.55
    assert (changed.mean() - clip.mean()).abs() < 8


def test_contrast_is_raised_and_lowered():
    torch.manual_seed(0)
    change = build_augmentation("contrast")
    factors = [float(change(draw_clip(1)).float().std() / draw_clip(1).float().std()) for _ in range(40)]
    assert min(factors) < 0.65 and max(factors) > 1.3


def test_a_mirrored_clip_is_flipped_from_left_to_right():
    assert torch.equal(build_augmentation("mirror")(draw_clip()), draw_clip().flip(-1))


def test_a_mirrored_clip_shows_the_other_hand():
    sides = [(name, mirror_class(name, HANDWASH_CLASSES)) for name in HANDWASH_CLASSES]
    assert sides[:3] == [("step_1", "step_1"), ("step_2_left", "step_2_right"), ("step_2_right", "step_2_left")]
    for name, other in sides:
        assert name[:6] == other[:6] and (name == other) == (name in ("step_1", "step_3"))


def test_a_class_whose_other_hand_is_missing_cannot_be_mirrored():
    with pytest.raises(ValueError, match="a mirrored clip of step_2_left shows step_2_right, which is none"):
        mirror_class("step_2_left", ["step_1", "step_2_left"])


def test_an_unknown_augmentation_is_told_with_those_that_are_known():
    with pytest.raises(ValueError, match="'translate'; known: none, translation, contrast, mirror"):
        build_augmentation("translate")


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 2**31))
def test_a_window_lies_within_the_clip(window, more, seed):
    length = window + more
    assert 0 <= place_window(length, window, torch.Generator().manual_seed(seed)) <= more
    centre = place_window(length, window)
    assert abs(centre - (more - centre)) <= 1


def test_every_place_of_a_window_is_drawn():
    generator = torch.Generator().manual_seed(0)
    assert {place_window(10, 7, generator) for _ in range(100)} == {0, 1, 2, 3}


def test_a_window_longer_than_the_clip_is_told():
    with pytest.raises(ValueError, match="a window of 9 frames does not fit into the 8"):
        place_window(8, 9)


@pytest.fixture(scope="module")
def published() -> dict:
    """What the published code of study B selects, where it is at hand."""
    file = SHARED / "published" / "transforms.json"
    if not file.is_file():
        pytest.skip("no facts of the published code beside this checkout (../shared/published/transforms.json)")
    return json.loads(file.read_text(encoding="utf-8"))


def draw_from(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_starts(length: int, window: int, stride: int, draws: int = 2000, **options) -> set[int]:
    generator = draw_from(0)
    return {int(place_frames(length, window, stride, "random", generator, **options)[0]) for _ in range(draws)}


def test_kinetics_600_weights_get_pixels_minus_the_mean_in_bgr():
    pixel = torch.tensor([200, 100, 30], dtype=torch.uint8).reshape(1, 3, 1, 1)  # red, green, blue
    values = build_input_transform(*ACTIVITYNET, "bgr")(pixel).flatten()
    torch.testing.assert_close(values, torch.tensor([30 - 114.7748, 100 - 107.7354, 200 - 99.4750]), rtol=0, atol=1e-4)


# Study B: crops


@pytest.mark.parametrize("width, height, scale, corner, box", [
    (427, 240, 1.0, "c", (93, 0, 333, 240)),
    (427, 240, 0.97, "c", (97, 4, 329, 236)),
    (427, 240, 0.9409, "c", (101, 8, 325, 232)),  # 225 pixels, in the centre 224
    (427, 240, 0.9409, "br", (202, 15, 427, 240)),
    (320, 240, 0.912673, "tr", (101, 0, 320, 219)),
    (240, 427, 0.88529281, "bl", (0, 215, 212, 427)),
    (240, 427, 0.88529281, "tl", (0, 0, 212, 212)),
])
def test_training_boxes_are_those_of_the_published_code(width, height, scale, corner, box):
    assert corner_box(width, height, scale, corner) == box


def test_all_training_boxes_are_those_of_the_published_code(published):
    assert published["scales"] == pytest.approx(SCALES, abs=1e-12)
    assert len(published["multi_scale_corner_crop"]) == 75
    for (width, height), scale, corner, box in published["multi_scale_corner_crop"]:
        assert corner_box(width, height, scale, corner) == tuple(box), (width, height, scale, corner)


@pytest.mark.parametrize("frame, scaled, box", [
    ((427, 240), (199, 112), (44, 0, 156, 112)),  # 43.5 pixels go to 44
    ((320, 240), (149, 112), (18, 0, 130, 112)),  # 18.5 to 18
    ((240, 427), (112, 199), (0, 44, 112, 156)),
])
def test_test_boxes_are_those_of_the_published_code(frame, scaled, box):
    assert centre_box(*frame, 112) == (scaled, box)


def test_all_test_boxes_are_those_of_the_published_code(published):
    for frame, scaled, box in published["validation_scale_then_centre_crop"]:
        assert centre_box(*frame, 112) == (tuple(scaled), tuple(box))


@given(st.integers(3, 500), st.integers(3, 500), st.sampled_from(SCALES), st.sampled_from(CORNERS))
def test_a_training_box_is_a_square_inside_the_picture(width, height, scale, corner):
    left, top, right, bottom = corner_box(width, height, scale, corner)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == bottom - top
    assert scale * min(width, height) - 2 <= right - left <= scale * min(width, height)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 200))
def test_a_test_box_is_a_square_inside_the_scaled_picture(width, height, size):
    (scaled_width, scaled_height), (left, top, right, bottom) = centre_box(width, height, size)
    assert min(scaled_width, scaled_height) == size == right - left == bottom - top
    assert 0 <= left and right <= scaled_width and 0 <= top and bottom <= scaled_height
    assert abs(left + right - scaled_width) <= 1 and abs(top + bottom - scaled_height) <= 1


@pytest.mark.parametrize("call, message", [
    (lambda: corner_box(427, 240, 1.0, "left"), "must be one of c, tl, tr, bl, br, found 'left'"),
    (lambda: corner_box(427, 240, 1.5, "c"), "scale must lie above 0 and up to 1, found 1.5"),
    (lambda: corner_box(427, 1, 1.0, "c"), "1.0 of 427 x 1 pixels gives 1"),
    (lambda: centre_box(427, 0, 112), "found 427 x 0 and 112"),
    (lambda: CentreCrop(0), "size must be 2 pixels or more, found 0"),
    (lambda: MultiScaleCornerCrop(1), "size must be 2 pixels or more, found 1"),
    (lambda: MultiScaleCornerCrop(32, ()), "one scale at least"),
    (lambda: build_crops(32, flip=1.5), "interval"),
])
def test_a_crop_that_cannot_be_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(8, 60), st.integers(8, 60), st.integers(2, 40), st.sampled_from([torch.uint8, torch.float32]),
       st.integers(0, 2**31))
def test_crops_give_squares_of_the_same_dtype_and_range_and_treat_all_frames_alike(width, height, size, dtype, seed):
    frame = torch.randint(60, 200, (3, height, width), generator=draw_from(seed)).to(dtype)
    clip = frame.expand(4, 3, height, width).clone()
    for crop in build_crops(size):
        result = draw_augmentation(crop, clip, draw_from(seed))
        assert result.shape == (4, 3, size, size) and result.dtype == dtype
        assert torch.equal(result, result[:1].expand_as(result))
        assert clip.min() - 1e-3 <= result.min() and result.max() <= clip.max() + 1e-3
        assert torch.equal(clip, frame.expand_as(clip))  # the clip itself is kept


def test_the_same_draw_gives_the_same_crop_and_others_differ():
    clip, (training, _) = draw_clip(size=60), build_crops(16)
    crops = [draw_augmentation(training, clip, draw_from(seed)) for seed in (1, 1, 2)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_every_scale_and_corner_is_drawn():
    torch.manual_seed(0)
    crop, clip = MultiScaleCornerCrop(16), torch.zeros(1, 3, 240, 427, dtype=torch.uint8)
    drawn = [crop.make_params([clip]) for _ in range(400)]
    assert {(params["scale"], params["corner"]) for params in drawn} == {(s, c) for s in SCALES for c in CORNERS}
    assert all(params["box"] == corner_box(427, 240, params["scale"], params["corner"]) for params in drawn)


def test_a_crop_of_the_wanted_size_is_cut_out_unchanged():
    clip = torch.arange(3 * 12 * 20).reshape(1, 3, 12, 20).to(torch.uint8)
    crop = MultiScaleCornerCrop(12)
    for corner in CORNERS:
        left, top, right, bottom = box = corner_box(20, 12, 1.0, corner)
        assert torch.equal(crop.transform(clip, {"box": box}), clip[..., top:bottom, left:right])
    assert torch.equal(CentreCrop(12)(clip), clip[..., 4:16])


def test_the_test_crop_shows_the_middle():
    clip = torch.zeros(2, 3, 40, 80, dtype=torch.uint8)
    clip[..., 20:60] = 200
    assert (build_crops(20)[1](clip)[..., 1:-1] == 200).all()


@given(st.integers(8, 60), st.integers(8, 60), st.integers(2, 40), st.sampled_from(SCALES), st.integers(0, 2**31))
def test_mirroring_last_shows_what_mirroring_first_does(width, height, size, scale, seed):
    """Every place has another on the other side that is drawn as often."""
    clip = torch.randint(256, (2, 3, height, width), generator=draw_from(seed)).to(torch.uint8)
    crop, other_side = MultiScaleCornerCrop(size), {"tl": "tr", "tr": "tl", "bl": "br", "br": "bl", "c": "c"}
    assert sorted(other_side) == sorted(CORNERS)
    for corner, other in other_side.items():
        left, top, right, bottom = corner_box(width, height, scale, corner)
        first, last = (crop.transform(given, {"box": box}).short() for given, box in (
            (clip.flip(-1), (width - right, top, width - left, bottom)), (clip, (left, top, right, bottom))))
        assert (first - last.flip(-1)).abs().max() <= 1
        left_of_other = corner_box(width, height, scale, other)[0]
        assert abs(left_of_other - (width - right)) <= 1, "in the middle, half a pixel goes to one side"


def test_flipping_is_certain_or_never_and_twice_is_identity():
    clip = draw_clip(size=24)
    always, never = (build_crops(24, flip=flip, scales=(1.0,))[0] for flip in (1, 0))
    assert torch.equal(always(clip), clip.flip(-1))
    assert torch.equal(always(always(clip)), clip)
    assert torch.equal(never(clip), clip)


# Study B: frames


@pytest.mark.parametrize("how, length, numbers", [
    ("centre", 83, range(25, 57, 2)),
    ("centre", 48, range(8, 40, 2)),
    ("centre", 31, range(0, 32, 2)),
    ("centre", 16, [*range(0, 16, 2)] * 2),
    ("begin", 83, range(0, 32, 2)),
    ("begin", 5, [0, 2, 4, 1, 3, 0, 2, 4, 1, 3, 0, 2, 4, 1, 3, 0]),
])
def test_windows_are_those_of_the_published_code(how, length, numbers):
    assert place_frames(length, 16, 2, how).tolist() == list(numbers)


def test_all_windows_are_those_of_the_published_code(published):
    for how in ("centre", "begin"):
        for length, numbers in published[f"temporal_{how}"].items():
            assert (place_frames(int(length), 16, 2, how) + 1).tolist() == numbers, (how, length)


@pytest.mark.parametrize("length, last", [(5, 0), (32, 0), (33, 0), (34, 1), (83, 50)])
def test_random_starts_are_those_of_the_published_code(length, last):
    assert draw_starts(length, 16, 2) == set(range(last + 1))


def test_all_ranges_of_random_starts_are_those_of_the_published_code(published):
    for length, (first, last) in published["temporal_random_start_range"].items():
        assert draw_starts(int(length), 16, 2) == set(range(first - 1, last)), length


def test_the_last_start_is_drawn_where_it_is_asked_for():
    assert draw_starts(34, 16, 2, last_start=True) == {0, 1, 2}
    assert draw_starts(32, 16, 2, last_start=True) == {0}


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 8), st.sampled_from(["random", "centre", "begin"]),
       st.booleans(), st.integers(0, 2**31))
def test_frames_lie_in_the_clip_and_differ_when_it_is_long_enough(length, window, stride, how, last_start, seed):
    frames = place_frames(length, window, stride, how, draw_from(seed), last_start=last_start)
    assert frames.shape == (window,) and frames.dtype == torch.int64
    assert 0 <= frames.min() and frames.max() < length
    if length >= window * stride:
        assert (frames.diff() == stride).all()  # never half of them twice
        assert frames[0] + window * stride <= length
    else:
        assert frames.tolist() == [number * stride % length for number in range(window)]


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**31))
def test_both_studies_place_windows_alike(window, more, seed):
    length = window + more
    assert place_frames(length, window)[0] == place_window(length, window)
    drawn = place_frames(length, window, 1, "random", draw_from(seed), last_start=True)
    assert drawn.tolist() == [place_window(length, window, draw_from(seed)) + number for number in range(window)]


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


def test_three_windows_lie_at_the_begin_in_the_centre_and_at_the_end():
    assert spread_frames(83, 16, 2, 3)[:, 0].tolist() == [0, 26, 51]  # the centre, 25.5, goes up


@pytest.mark.parametrize("call, message", [
    (lambda: place_frames(0, 16, 2), "found 0 frames, a window of 16, a stride of 2"),
    (lambda: place_frames(30, 0, 2), "found 30 frames, a window of 0"),
    (lambda: place_frames(30, 16, 0), "a stride of 0"),
    (lambda: place_frames(30, 16, 2, "end"), "must be one of random, centre, begin, found 'end'"),
    (lambda: place_frames(30, 16, 2, "random"), "needs a generator"),
    (lambda: spread_frames(30, 16, 2, 0), "1 window or more, found 0"),
    (lambda: spread_frames(-1, 16, 2, 3), "found -1 frames"),
])
def test_a_window_that_cannot_be_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(40, 90), st.integers(20, 40), st.integers(0, 50))
def test_crops_of_the_middle_square_never_leave_it(width, height, seed):
    clip = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    left = (width - height) // 2
    clip[..., left:left + height + (width - height) % 2] = 255
    training, _ = build_crops(16, middle_square=True)
    torch.manual_seed(seed)
    assert training(clip).min() >= 200, "nothing but the middle, give or take half a pixel"
