"""Behaviour tests of a trained model (after Ribeiro et al., 2020, "Beyond accuracy: behavioral testing of NLP models
with CheckList"), of the three kinds that study B's paper names.

Invariance: the prediction stays when a clip is changed harmlessly. Minimum functionality: the plainest clip of each
action is recognised. Directional expectation: a change of what makes the action lowers its probability. A change is a
function as of `ClipDataset`: (frames uint8 (count, 3, height, width), the clip's name, numbers of the frames) ->
frames. It sees frames before they are cropped, so what a shift moves into the picture is what was filmed there.
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
from health_actions.learning.scores import predict_folds, read_cards, wilson_interval

FRONT = "C002"  # NTU's camera in front of the performer; the other two see a side
INVARIANCE, FUNCTIONALITY, DIRECTION = KINDS = ("invariance", "minimum functionality", "directional expectation")
RESULT_COLUMNS = ["clip", "fold", "class", "kind", "test", "compared_with", "predicted_before", "predicted_after",
           "probability_before", "probability_after", "as_expected"]


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


def check_behaviour(models: Path, splits: pd.DataFrame, *, frames_folder: Path,
                    places: dict[str, tuple[np.ndarray, np.ndarray]], falling: str, hand_action: str,
                    brightness: list[float], shift: float, mask: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run all tests; each fold's model sees its own test clips.

    Args:
        models: folder of one trained network, with `fold_<k>/`.
        splits: one row a clip and fold: clip, class, scene, fold, subset and, if it is known, take.
        places: clip -> places of the acting hand and of a leg, see `cover_place`; of clips where they are known.
        falling: the class that should be less probable when its clips are played backwards.
        hand_action: the class that should be less probable when a disc of radius `mask` covers the acting hand.
        brightness, shift: see `list_changes`.

    Returns:
        Results, a row a test: kind, test, expectation, clips (n), failing (clips not as expected), rate (share as
        expected), low and high (95 %), of invariance also accuracy_before and accuracy (without and with the change),
        and note: why nothing was tested where n is 0.

        Clips, a row a clip and test: `RESULT_COLUMNS`; probabilities are those of the clip's class. "Before" is without
        the change; for another camera, the front camera's clip; for the hand against a leg, the clip with the leg
        masked. The plainest clips have only "before".

    Raises:
        FileNotFoundError: when no fold was trained.
    """
    tested = splits[splits["subset"] == "testing"].reset_index(drop=True)
    predict = functools.partial(predict_folds, models, frames_folder=frames_folder)
    plain = predict(tested)
    tested = tested.merge(plain[["clip", "fold"]], on=["clip", "fold"])  # of the folds that were trained
    none, view, stays, lowers = plain.head(0), read_cards(models)[0]["clip"], "prediction stays", "P({}) goes down"
    tests = [(INVARIANCE, name, stays, _compare(plain, predict(tested, change=change)), "")
             for name, change in list_changes(brightness, shift).items()]
    pairs = pair_cameras(tested)
    front = pairs[["other", "fold"]].merge(plain, left_on=["other", "fold"], right_on=["clip", "fold"])
    table = _compare(front.assign(clip=pairs["clip"]), pairs[["clip", "fold"]].merge(plain, on=["clip", "fold"]))
    tests.append((INVARIANCE, "another camera", stays, table.assign(compared_with=pairs["other"]),
                  "no test clips show one movement from two cameras"))
    plainest = choose_plainest(tested, frames_folder, window=view["window"], stride=view["stride"])
    tests.append((FUNCTIONALITY, "plainest clip of each action", "recognised",
                  _compare(plainest[["clip", "fold"]].merge(plain, on=["clip", "fold"])), ""))

    def predict_all(clips: pd.DataFrame, *changes: Callable | None) -> list[pd.DataFrame]:
        # Without a change, too, and not taken from `plain`: where a card asks for random windows, these depend on a
        # clip's place in the table.
        return [predict(clips, change=change) if len(clips) else none for change in changes]

    falls, acting = (tested[tested["class"] == name] for name in (falling, hand_action))
    tests.append((DIRECTION, f"{falling} played backwards", lowers.format(falling),
                  _compare(*predict_all(falls, None, reverse)), f"no test clips of {falling}"))
    note = "not possible without joints" if len(acting) else f"no test clips of {hand_action}"
    masks = [functools.partial(cover_place, places={clip: both[part] for clip, both in places.items()}, radius=mask)
             for part in (0, 1)]
    unmasked, hand, leg = predict_all(acting[acting["clip"].isin(places)], None, *masks)
    tests.append((DIRECTION, f"{hand_action}, hand masked", lowers.format(hand_action), _compare(unmasked, hand), note))
    tests.append((DIRECTION, f"{hand_action}, hand masked and not a leg",
                  f"P({hand_action}) lower than with a leg masked", _compare(leg, hand), note))
    results, tables = zip(*(_judge(*test) for test in tests))
    return pd.DataFrame(results).round(3), pd.concat(tables, ignore_index=True)


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
    """Two tables of `predict_folds`, of the same clips in the same order, side by side; see `RESULT_COLUMNS`."""
    table = before[["clip", "fold", "class"]].assign(compared_with="", predicted_after="", probability_after=np.nan)
    for moment, predictions in {"before": before, "after": after}.items():
        if predictions is not None:
            table[f"predicted_{moment}"] = predictions["predicted"].to_numpy()
            table[f"probability_{moment}"] = np.array([row[row["class"]] for _, row in predictions.iterrows()], float)
    return table


def _judge(kind: str, test: str, expectation: str, table: pd.DataFrame, note: str) -> tuple[dict, pd.DataFrame]:
    """The row of the results and the clips' rows of one test."""
    right_before, right_after = (table[f"predicted_{moment}"] == table["class"] for moment in ("before", "after"))
    is_expected = {INVARIANCE: table["predicted_before"] == table["predicted_after"], FUNCTIONALITY: right_before,
                   DIRECTION: table["probability_after"] < table["probability_before"]}[kind]
    count, expected = len(table), int(is_expected.sum())
    low, high = wilson_interval(expected, count)
    harmless = count > 0 and kind == INVARIANCE
    result = {"kind": kind, "test": test, "expectation": expectation, "clips": count, "failing": count - expected,
              "rate": expected / count if count else np.nan, "low": low, "high": high,
              "accuracy_before": right_before.mean() if harmless else np.nan,
              "accuracy": right_after.mean() if harmless else np.nan, "note": "" if count else note}
    return result, table.assign(kind=kind, test=test, as_expected=is_expected.astype(bool))[RESULT_COLUMNS]
