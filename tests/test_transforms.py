import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from health_actions.transforms import AUGMENTATIONS, build_augmentation, build_input_transform, place_window


def draw_clip(frames=4, size=40) -> torch.Tensor:
    """The same noise in each frame."""
    frame = torch.randint(30, 226, (3, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return frame.expand(frames, 3, size, size).clone()


def test_frames_are_scaled_to_one_and_standardised_by_channel():
    clip = torch.stack([torch.full((2, 2), value) for value in (0, 255, 51)]).to(torch.uint8)[None]
    values = build_input_transform([0.0, 0.5, 0.2], [1.0, 0.25, 0.5])(clip)
    assert values.dtype == torch.float32 and values.shape == clip.shape
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([0.0, 2.0, 0.0]))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("seed", range(5))
def test_augmentations_change_every_frame_of_a_clip_in_the_same_way(name, seed):
    clip = draw_clip()
    torch.manual_seed(seed)
    changed = build_augmentation(name, 1.0)(clip)
    assert changed.shape == clip.shape and changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:1].expand_as(changed))
    assert torch.equal(clip, draw_clip())  # the clip itself is kept
    assert torch.equal(changed, clip) == (name == "none")


@pytest.mark.parametrize("seed", range(8))
def test_translation_moves_sideways_by_up_to_a_fifth_and_lets_black_in(seed):
    clip = draw_clip()
    torch.manual_seed(seed)
    changed = build_augmentation("translation", 1.0)(clip)
    moves = [move for move in range(-8, 9) if torch.equal(
        changed[..., max(0, move):40 + min(0, move)], clip[..., max(0, -move):40 + min(0, -move)])]
    assert len(moves) == 1
    black = changed[..., :moves[0]] if moves[0] > 0 else changed[..., 40 + moves[0]:] if moves[0] else changed[..., :0]
    assert (black == 0).all()


def test_translation_goes_both_ways():
    torch.manual_seed(0)
    change = build_augmentation("translation", 1.0)
    edges = [(int(moved[0, 0, 0, 0]) == 0, int(moved[0, 0, 0, -1]) == 0) for moved in
             (change(draw_clip(1)) for _ in range(20))]
    assert {(True, False), (False, True)} <= set(edges)


@pytest.mark.parametrize("seed", range(5))
def test_contrast_is_changed_by_up_to_a_half(seed):
    torch.manual_seed(seed)
    clip, changed = draw_clip().float(), build_augmentation("contrast", 1.0)(draw_clip()).float()
    assert 0.45 < changed.std() / clip.std() < 1.55
    assert (changed.mean() - clip.mean()).abs() < 8


def test_probability_is_that_of_whole_clips():
    torch.manual_seed(0)
    assert all(torch.equal(build_augmentation("translation", 0.0)(draw_clip()), draw_clip()) for _ in range(5))
    change = build_augmentation("contrast", 0.5)
    changed = sum(not torch.equal(change(draw_clip(2, 8)), draw_clip(2, 8)) for _ in range(200))
    assert 70 < changed < 130


def test_an_unknown_augmentation_is_told_with_those_that_are_known():
    with pytest.raises(ValueError, match="unknown augmentation 'mirror'; known: none, translation, contrast"):
        build_augmentation("mirror", 0.5)


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_a_probability_lies_between_0_and_1(probability):
    with pytest.raises(ValueError, match="must lie in 0-1"):
        build_augmentation("contrast", probability)


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
