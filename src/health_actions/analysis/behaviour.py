"""Behaviour tests of a trained model: what should not, what must, and which way its answer should change.

The three kinds that study B's paper names (after Ribeiro et al., 2020, "Beyond accuracy: behavioral testing of NLP
models with CheckList"): invariance, the prediction stays when a clip is changed harmlessly; minimum functionality, the
plainest clip of each action is recognised; directional expectation, a change of what makes the action lowers its
probability. Changes are made to the frames of the window that a model is tested on, before they are cropped, so what a
shift moves into the picture is what was filmed there. A change is a function as of `FrameDataset`: (frames (count, 3,
height, width) uint8, the clip's name, numbers of the frames) -> frames.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchvision.transforms.v2 import functional

from health_actions.data.frames import open_clip
from health_actions.data.transforms import place_frames
from health_actions.learning.datasets import FrameDataset
from health_actions.learning.evaluation import give_interval, predict_folds, read_cards
from synthetic_clips.figure import JOINTS
from synthetic_clips.ntu import describe_clip, project_joints
from synthetic_clips.room import SIZE

FRONT = "C002"  # NTU's camera in front of the performer; the other two see a side
INVARIANCE, FUNCTIONALITY, DIRECTION = KINDS = ("invariance", "minimum functionality", "directional expectation")
COLUMNS = ["clip", "fold", "class", "kind", "test", "compared_with", "predicted_before", "predicted_after",
           "probability_before", "probability_after", "as_expected"]


def mirror(frames: torch.Tensor, *_) -> torch.Tensor:
    """Left and right exchanged."""
    return functional.horizontal_flip(frames)


def brighten(frames: torch.Tensor, *_, factor: float) -> torch.Tensor:
    """Grey values times `factor`, up to white."""
    return functional.adjust_brightness(frames, factor)


def move(frames: torch.Tensor, *_, share: float) -> torch.Tensor:
    """To the right (below 0: the left) by a share of the width; the edge's pixels are repeated, no black."""
    width = frames.shape[-1]
    pixels = round(share * width)
    padded = functional.pad(frames, [max(pixels, 0), 0, max(-pixels, 0), 0], padding_mode="edge")
    return padded[..., max(-pixels, 0):][..., :width]


def reverse(frames: torch.Tensor, *_) -> torch.Tensor:
    """Played backwards."""
    return frames.flip(0)


def mask_discs(frames: torch.Tensor, centres: torch.Tensor, radius: float) -> torch.Tensor:
    """Paint a disc over each frame, in the colour of its surroundings: the median of a rim a quarter as wide.

    Args:
        frames: uint8 (count, 3, height, width).
        centres: (count, 2), pixels to the right and down; discs may lie outside of the picture.
        radius: pixels.

    Returns:
        A changed copy.
    """
    count, _, height, width = frames.shape
    right, down = centres.to(torch.float32).T[..., None, None]
    distance = torch.hypot(torch.arange(width) - right, torch.arange(height)[:, None] - down)[:, None]
    is_rim = (distance > radius) & (distance <= 1.25 * radius + 1)
    colours = frames.float().masked_fill(~is_rim, torch.nan).flatten(2).nanmedian(-1).values
    colours = colours.nan_to_num(0).to(torch.uint8).view(count, 3, 1, 1)  # no rim: no disc either
    return torch.where(distance <= radius, colours, frames)


@dataclass(frozen=True)
class Mask:
    """A change: a disc over a place that moves.

    Args:
        places: clip -> (its frames, 2), shares of the width to the right and of the height down.
        radius: share of the height.
    """

    places: dict[str, np.ndarray]
    radius: float

    def __call__(self, frames: torch.Tensor, clip: str, numbers: torch.Tensor) -> torch.Tensor:
        height, width = frames.shape[-2:]
        places = torch.from_numpy(self.places[clip][numbers.numpy()])
        return mask_discs(frames, places * torch.tensor([width, height]), self.radius * height)


def list_changes(brightness: list[float], shift: float) -> dict[str, Callable]:
    """The harmless changes by their names: mirrored, other brightness, moved a little.

    Args:
        brightness: factors.
        shift: share of the width, to either side.
    """
    changes = {"mirrored": mirror}
    changes |= {f"brightness x {factor:g}": functools.partial(brighten, factor=factor) for factor in brightness}
    for side, sign in (("left", -1), ("right", 1)):
        changes[f"moved {side} by {shift:.0%}"] = functools.partial(move, share=sign * shift)
    return changes


def locate_hand(clip: str, length: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the acting hand is in a clip that this project rendered, and where a mask does no harm.

    The latter is the shin of the other side's leg: as much a part of the body, and not of what the hand does.

    Args:
        clip: its name, as `synthetic.ntu.clip_name` gives it; folders in front do not matter.
        length: frames of the clip.

    Returns:
        Two arrays (length, 2), shares of the picture's width to the right and height down; None where the name or the
        length is not that of a rendered clip, so that nobody knows its joints.
    """
    try:
        facts = describe_clip(clip)
    except ValueError:
        return None
    if facts.frames != length:
        return None
    joints = project_joints(facts.performer, facts.repetition, facts.action, facts.camera) / SIZE
    other = {"left": "right", "right": "left"}[facts.hand]
    hand, knee, ankle = (joints[:, JOINTS.index(name)] for name in (
        f"{facts.hand} hand", f"{other} knee", f"{other} ankle"))
    return hand, (knee + ankle) / 2


def locate_hands(clips: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`locate_hand` of every clip whose joints are known.

    Args:
        clips: one row a clip: clip, length, synthetic.
    """
    known = clips[clips["synthetic"].astype(bool)]
    located = {row.clip: locate_hand(row.clip, row.length) for row in known.itertuples()}
    return {clip: places for clip, places in located.items() if places is not None}


def measure_movement(frames_folder: Path, clip: str, *, window: int, stride: int) -> float:
    """How much a clip's centre window changes: mean absolute difference of neighbouring frames, grey values of 255."""
    archive = open_clip(frames_folder, clip)
    numbers = place_frames(len(archive), window, stride).numpy()
    changes = np.abs(np.diff(archive[numbers].astype(np.int16), axis=0)).mean((1, 2, 3))
    follows = np.diff(numbers) > 0  # where a short clip is looped, its start does not follow its end
    return float(changes[follows].mean()) if follows.any() else 0.0


def choose_plainest(tested: pd.DataFrame, frames_folder: Path, *, window: int, stride: int) -> pd.DataFrame:
    """The plainest clip of each action: the one that moves most (`measure_movement`) of those filmed from the front.

    Where no clip of an action is known to be filmed from the front (`FRONT`), all of them are looked at. The first by
    name is taken of equal ones. The model has no part in the choice.

    Args:
        tested: one row a clip, with clip, class and scene.

    Returns:
        Those rows, ordered by class, with movement.
    """
    is_front = tested["scene"] == FRONT
    looked_at = tested[is_front | ~tested["class"].isin(tested.loc[is_front, "class"])]
    movement = [measure_movement(frames_folder, clip, window=window, stride=stride) for clip in looked_at["clip"]]
    ordered = looked_at.assign(movement=movement).sort_values(["class", "movement", "clip"],
                                                             ascending=[True, False, True], kind="stable")
    return ordered.drop_duplicates("class")


def pair_cameras(tested: pd.DataFrame) -> pd.DataFrame:
    """Test clips of movements that several cameras filmed, each but the front one's beside the front one's.

    Without a front camera (`FRONT`) the first scene by name stands for it. Both clips are of one fold: one model sees
    them.

    Args:
        tested: one row a clip and fold, with clip, fold, scene and, if it is known, take.

    Returns:
        clip, fold, other (the clip that it is compared with).
    """
    if "take" not in tested:
        return tested.head(0)[["clip", "fold"]].assign(other="")
    ordered = tested.dropna(subset="take").assign(side=tested["scene"] != FRONT)
    ordered = ordered.sort_values(["fold", "take", "side", "scene", "clip"])
    first = ordered.groupby(["fold", "take"])[["clip", "scene"]].transform("first")
    pairs = ordered.assign(other=first["clip"])[ordered["scene"] != first["scene"]]
    return pairs[["clip", "fold", "other"]].reset_index(drop=True)


def check_behaviour(models: Path, splits: pd.DataFrame, clips: pd.DataFrame, *, frames_folder: Path,
                    falling: str, hand_action: str, brightness: list[float], shift: float,
                    mask: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run all tests; each fold's model sees its own test clips.

    Args:
        models: folder of one trained network, with `fold_<k>/`.
        splits: one row a clip and fold: clip, class, scene, fold, subset and, if it is known, take.
        clips: one row a clip: clip, length, synthetic.
        frames_folder: as written by `extract_archives`.
        falling: the class whose clips should be less so when they are played backwards.
        hand_action: the class whose clips should be less so when the acting hand is masked.
        brightness, shift: see `list_changes`.
        mask: radius of the masks, share of the height.

    Returns:
        Results and clips. Results, a row a test: kind, test, expectation, clips (n), failing (those that do not behave
        as expected), rate (share of those that do), low and high (95 %), of invariance also accuracy_before and
        accuracy (of these clips, without and with the change), and note: why nothing was tested where n is 0.

        Clips, a row a clip and test: `COLUMNS`; probabilities are those of the clip's own class. "Before" is without
        the change; in "another camera" it is what the front camera's clip gave, and in the test against a masked leg
        what the same clip gave with the leg masked. The plainest clips have only "before".

    Raises:
        FileNotFoundError: when no fold was trained.
    """
    tested = splits[splits["subset"] == "testing"].reset_index(drop=True)
    predict = functools.partial(predict_folds, models, frames_folder=frames_folder)
    plain = predict(tested)
    tested = tested.merge(plain[["clip", "fold"]], on=["clip", "fold"])  # of the folds that were trained
    clip = read_cards(models)[0]["clip"]
    outcomes: list[tuple[dict, pd.DataFrame]] = []

    for name, change in list_changes(brightness, shift).items():
        outcomes.append(_keeps(name, _compare(plain, predict(tested, change=change))))
    pairs = pair_cameras(tested)
    side = pairs[["clip", "fold"]].merge(plain, on=["clip", "fold"])
    front = pairs[["other", "fold"]].merge(plain, left_on=["other", "fold"], right_on=["clip", "fold"])
    table = _compare(front.assign(clip=side["clip"]), side).assign(compared_with=pairs["other"])
    outcomes.append(_keeps("another camera", table, "no test clips show one movement from two cameras"))

    plainest = choose_plainest(tested, frames_folder, window=clip["window"], stride=clip["stride"])
    table = _compare(plainest[["clip", "fold"]].merge(plain, on=["clip", "fold"]))
    outcomes.append(_judge(FUNCTIONALITY, "plainest clip of each action", "recognised", table,
                           table["predicted_before"] == table["class"]))

    # Predicted anew without the change, too: where a card asks for random windows, they depend on a clip's place.
    falls = tested[tested["class"] == falling]
    table = _compare(predict(falls), predict(falls, change=reverse)) if len(falls) else _compare(plain.head(0))
    outcomes.append(_lowers(f"{falling} played backwards", falling, table, f"no test clips of {falling}"))

    acting = tested[tested["class"] == hand_action]
    places = locate_hands(clips[clips["clip"].isin(acting["clip"])])
    located = acting[acting["clip"].isin(places)]
    unmasked = hand = leg = plain.head(0)
    if len(located):
        hand, leg = (predict(located, change=Mask({name: both[part] for name, both in places.items()}, mask))
                     for part in (0, 1))
        unmasked = predict(located)
    note = "not possible without joints" if len(acting) else f"no test clips of {hand_action}"
    outcomes.append(_lowers(f"{hand_action}, hand masked", hand_action, _compare(unmasked, hand), note))
    outcomes.append(_lowers(f"{hand_action}, hand masked and not a leg", hand_action, _compare(leg, hand), note,
                            "lower than with a leg masked"))
    results = pd.DataFrame([summary for summary, _ in outcomes])
    return results.round(3), pd.concat([table for _, table in outcomes], ignore_index=True)


def change_clip(frames_folder: Path, clip: str, change: Callable | None, *, window: int, stride: int,
                size: int) -> np.ndarray:
    """What a model would see of a changed clip: uint8 (window, size, size, 3), for pictures."""
    shown = pd.DataFrame({"clip": [clip], "class": "any"})
    dataset = FrameDataset(frames_folder, shown, ["any"], size=size, window=window, stride=stride, change=change,
                           input_transform=nn.Identity())
    return dataset[0][0].permute(1, 2, 3, 0).numpy()


def describe_results(results: pd.DataFrame) -> str:
    """The results of `check_behaviour` as sentences: what fails most first, at the end what could not be tested."""
    sentences = []
    for row in results[results["clips"] > 0].sort_values("rate", kind="stable").itertuples():
        verdict = f"**fails in {row.failing}**" if row.failing else "as expected in all"
        accuracy = "" if pd.isna(row.accuracy) else f"; accuracy {row.accuracy:.0%}, before {row.accuracy_before:.0%}"
        sentences.append(f"- {row.test}: {verdict} of {row.clips} clips ({row.rate:.0%} as expected, 95 % interval "
                         f"{row.low:.0%} to {row.high:.0%}{accuracy}).")
    sentences += [f"- {row.test}: not tested, {row.note}." for row in results[results["clips"] == 0].itertuples()]
    return "\n".join(sentences)


def _compare(before: pd.DataFrame, after: pd.DataFrame | None = None) -> pd.DataFrame:
    """Two tables of `predict_folds`, of the same clips in the same order, side by side; see `COLUMNS`."""
    table = before[["clip", "fold", "class"]].assign(compared_with="", predicted_after="", probability_after=np.nan)
    for moment, predictions in {"before": before, "after": after}.items():
        if predictions is not None:
            own = [row[row["class"]] for _, row in predictions.iterrows()]
            table[f"predicted_{moment}"] = predictions["predicted"].to_numpy()
            table[f"probability_{moment}"] = np.array(own, float)
    return table


def _judge(kind: str, test: str, expectation: str, table: pd.DataFrame, is_expected: pd.Series,
           note: str = "") -> tuple[dict, pd.DataFrame]:
    count, right = len(table), int(is_expected.sum())
    low, high = give_interval(right, count)
    summary = {"kind": kind, "test": test, "expectation": expectation, "clips": count, "failing": count - right,
               "rate": right / count if count else np.nan, "low": low, "high": high, "accuracy_before": np.nan,
               "accuracy": np.nan, "note": "" if count else note}
    return summary, table.assign(kind=kind, test=test, as_expected=is_expected.astype(bool))[COLUMNS]


def _keeps(test: str, table: pd.DataFrame, note: str = "") -> tuple[dict, pd.DataFrame]:
    summary, table = _judge(INVARIANCE, test, "prediction stays", table,
                            table["predicted_before"] == table["predicted_after"], note)
    if len(table):
        summary |= {"accuracy_before": (table["predicted_before"] == table["class"]).mean(),
                    "accuracy": (table["predicted_after"] == table["class"]).mean()}
    return summary, table


def _lowers(test: str, name: str, table: pd.DataFrame, note: str,
            how: str = "goes down") -> tuple[dict, pd.DataFrame]:
    return _judge(DIRECTION, test, f"P({name}) {how}", table,
                  table["probability_after"] < table["probability_before"], note)
