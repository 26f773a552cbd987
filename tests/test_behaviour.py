"""What behaviour tests change and which clips they choose, on clips drawn here."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_square, write_video

from health_actions.analysis.behaviour import choose_plainest, cover_place, list_changes, pair_cameras, shift_sideways
from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames


def draw_noise(height=20, width=30, frames=4):
    return torch.randint(0, 255, (frames, 3, height, width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def test_the_harmless_changes_have_names_and_keep_the_shape():
    changes, frames = list_changes([0.8, 1.2], 0.04), draw_noise()
    assert list(changes)[:3] == ["mirrored", "brightness x 0.8", "brightness x 1.2"]
    assert list(changes)[3:] == ["moved left by 4%", "moved right by 4%"]
    changed = {name: change(frames, "any", torch.arange(4)) for name, change in changes.items()}
    assert {clip.shape for clip in changed.values()} == {(4, 3, 20, 30)}
    assert torch.equal(changed["mirrored"], frames.flip(-1))
    assert torch.equal(changed["moved left by 4%"][..., :-1], frames[..., 1:]), "4 % of 30 pixels are one"
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
