import pytest
import torch
from conftest import HANDWASH_CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.transforms import (
    AUGMENTATIONS,
    build_augmentation,
    build_input_transform,
    mirror_class,
    place_window,
)


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
