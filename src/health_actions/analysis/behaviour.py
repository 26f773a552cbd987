"""What behaviour tests of a trained model change and choose (after Ribeiro et al., 2020, "Beyond accuracy: behavioral
testing of NLP models with CheckList").

A change is a function as of `ClipDataset`: (frames uint8 (count, 3, height, width), the clip's name, numbers of the
frames) -> frames. It sees frames before they are cropped, so what a shift moves into the picture is what was filmed
there.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.transforms.v2 import functional

from health_actions.data.frames import open_clip
from health_actions.data.transforms import place_frames

FRONT = "C002"  # NTU's camera in front of the performer; the other two see a side


def reverse(frames: torch.Tensor, *_) -> torch.Tensor:
    """Played backwards."""
    return frames.flip(0)


def shift_sideways(frames: torch.Tensor, *_, share: float) -> torch.Tensor:
    """Shifted to the right (below 0: the left) by a share of the width; the edge's pixels are repeated."""
    height, width = frames.shape[-2:]
    pixels = round(share * width)
    padded = functional.pad(frames, [max(pixels, 0), 0, max(-pixels, 0), 0], padding_mode="edge")
    return functional.crop(padded, 0, max(-pixels, 0), height, width)


def cover_place(frames: torch.Tensor, clip: str, numbers: torch.Tensor, *, places: dict[str, np.ndarray],
                radius: float) -> torch.Tensor:
    """A disc over a moving place, in the colour of its surroundings: the median of a rim a quarter as wide.

    Args:
        places: clip -> (its frames, 2), shares of the width to the right and of the height down; may be outside.
        radius: share of the height.
    """
    count, _, height, width = frames.shape
    centres, reach = torch.from_numpy(places[clip][numbers.numpy()]) * torch.tensor([width, height]), radius * height
    right, down = centres.float().T[..., None, None]
    distance = torch.hypot(torch.arange(width) - right, torch.arange(height)[:, None] - down)[:, None]
    is_rim = (distance > reach) & (distance <= 1.25 * reach + 1)
    colours = frames.float().masked_fill(~is_rim, torch.nan).flatten(2).nanmedian(-1).values
    colours = colours.nan_to_num(0).to(torch.uint8).view(count, 3, 1, 1)  # no rim in the picture: no disc either
    return torch.where(distance <= reach, colours, frames)


def list_changes(brightness: list[float], shift: float) -> dict[str, Callable]:
    """The harmless changes by name.

    Args:
        brightness: factors of grey values, up to white.
        shift: to either side, share of the width.
    """
    changes = {"mirrored": lambda frames, *_: functional.horizontal_flip(frames)}
    for factor in brightness:
        changes[f"brightness x {factor:g}"] = lambda frames, *_, by=factor: functional.adjust_brightness(frames, by)
    for side, share in (("left", -shift), ("right", shift)):
        changes[f"moved {side} by {shift:.0%}"] = functools.partial(shift_sideways, share=share)
    return changes


def choose_plainest(tested: pd.DataFrame, frames_folder: Path, *, window: int, stride: int) -> pd.DataFrame:
    """The plainest clip of each action: the one that moves most, of those from the front camera where there are any.

    The model has no part in the choice.

    Args:
        tested: one row a clip, with clip, class and scene. Those of the plainest clips are returned, with movement: the
            mean absolute difference between neighbouring frames of the centre window, grey values of 255.
    """
    is_front = tested["scene"] == FRONT
    candidates, movement = tested[is_front | ~tested["class"].isin(tested.loc[is_front, "class"])], []
    for clip in candidates["clip"]:
        archive = open_clip(frames_folder, clip)
        numbers = place_frames(len(archive), window, stride).numpy()
        changes = np.abs(np.diff(archive[numbers].astype(np.int16), axis=0)).mean((1, 2, 3))
        follows = np.diff(numbers) > 0  # where a short clip is looped, its start does not follow its end
        movement.append(float(changes[follows].mean()) if follows.any() else 0.0)
    return candidates.assign(movement=movement).sort_values(
        ["class", "movement", "clip"], ascending=[True, False, True], kind="stable").drop_duplicates("class")


def pair_cameras(tested: pd.DataFrame) -> pd.DataFrame:
    """Test clips of movements that several cameras filmed: clip, fold, other (the front camera's clip in that fold).

    Without the front camera (`FRONT`), the first scene by name takes its place.

    Args:
        tested: one row a clip and fold, with clip, fold, scene and, if it is known, take.
    """
    if "take" not in tested:
        return tested.head(0)[["clip", "fold"]].assign(other="")
    ordered = tested.dropna(subset="take").assign(side=tested["scene"] != FRONT)
    ordered = ordered.sort_values(["fold", "take", "side", "scene", "clip"])
    first = ordered.groupby(["fold", "take"])[["clip", "scene"]].transform("first")
    pairs = ordered.assign(other=first["clip"])[ordered["scene"] != first["scene"]]
    return pairs[["clip", "fold", "other"]].reset_index(drop=True)
