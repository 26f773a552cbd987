"""Which clips train, validate and test: the protocols."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from health_actions.data.lists import read_lists

SUBSETS = ["training", "validation", "testing"]
# What no two subsets may share under each protocol: a column of the clips' table.
PROTOCOLS = {"stratified": None, "by_performer": "recording", "by_scene": "scene", "published": None}
# Protocols with given test clips (Shahroudy et al., 2016; Liu et al., 2020): the column, and its values that train; of
# a take, S001P002R001A043, the setup. Up to performer 40, the list of 2020 is that of 2016.
NTU_PROTOCOLS = {
    "cross_subject": ("recording", [f"P{number:03d}" for number in (
        1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49, 50, 52, 53, 54, 55,
        56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103)]),
    "cross_view": ("scene", ["C002", "C003"]),
    "cross_setup": ("take", [f"S{number:03d}" for number in range(2, 33, 2)]),
}


def make_splits(clips: pd.DataFrame, *, protocol: str, folds: int, test_on: str = "every_fold", seed: int = 0,
                shares: list[int] | None = None, lists: str | Path = "") -> pd.DataFrame:
    """Assign every clip to training, validation or testing.

    The set is cut into `folds` parts (at least 3; fewer where there are fewer recordings or scenes) with the classes
    spread evenly. In each fold one part is the test set and the next one selects the epoch, so every clip is tested
    once, by a model that neither trained nor was selected on it. `test_on` "first_fold" makes one fold alone. A split
    that the clips' own folders give is used instead. ValueError where there are too few recordings, scenes or clips.

    Protocols: "stratified" (classes balanced alone; "published", of both papers, is the same), "by_performer" and
    "by_scene" (no recording, or scene, in two subsets), NTU's "cross_subject" (listed performers train), "cross_view"
    (cameras 2 and 3 train) and "cross_setup" (even setups train), which make one fold; there a fifth of the training
    performers validates. With `shares`, relative numbers of training, validation and test clips, "stratified" and
    "published" make one fold of these sizes; the other protocols do not look at them. Protocol "lists": the folds of
    `read_lists` in the folder `lists`, of the clips named there.

    Returns one row a clip and fold: clip, class, recording, scene (and take where there is one), fold (from 1), subset.
    """
    if protocol not in (known := [*PROTOCOLS, *NTU_PROTOCOLS, "lists"]):
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(known)}")
    if test_on not in ("every_fold", "first_fold"):
        raise ValueError(f"test_on must be every_fold or first_fold, found {test_on!r}")
    if protocol == "lists":
        named = clips.drop(columns="given_split").merge(read_lists(lists, clips)[0], on="clip")
        return pd.concat([part.filter(["clip", "class", "recording", "scene", "take"]).assign(
            fold=fold, subset=_complete_given(part, seed)) for fold, part in named.groupby("fold")], ignore_index=True)
    if min(folds, len(clips)) < 3:
        raise ValueError("training, validation and testing need at least 3 folds and 3 clips, "
                         f"found {folds} folds and {len(clips)} clips")
    if protocol in NTU_PROTOCOLS and (clips["given_split"] == "").all():
        column, training = NTU_PROTOCOLS[protocol]
        sides = clips.get(column, clips["clip"]).str.replace(r"^(S\d{3})P\d{3}R\d{3}A\d{3}$", r"\1", regex=True)
        trains = sides.isin(training)
        if trains.nunique() < 2:
            raise ValueError(f"{protocol} trains on {', '.join(training)} and tests the others; these clips are all "
                             f"on one side, {', '.join(sorted(sides.unique())[:8])}: use by_performer")
        clips = clips.assign(given_split=np.where(trains, "training", "testing"))
    listed = clips.filter(["clip", "class", "recording", "scene", "take"])
    if (clips["given_split"] != "").any():
        return listed.assign(fold=1, subset=_complete_given(clips, seed))
    if shares and PROTOCOLS[protocol] is None:
        return listed.assign(fold=1, subset=_deal_out(clips["class"], shares, seed))
    parts = cut_parts(clips, PROTOCOLS[protocol], folds, seed)
    count, splits = parts.max() + 1, []
    for fold in range(count if test_on == "every_fold" else 1):
        subset = np.select([parts == fold, parts == (fold + 1) % count], ["testing", "validation"], "training")
        if count == 2:  # two scenes: the second one is needed for training, so other recordings of it validate
            rest = np.flatnonzero(parts != fold)
            validates = cut_parts(clips.iloc[rest], "recording" if PROTOCOLS[protocol] else None, 5, seed) == 0
            subset[rest] = np.where(validates, "validation", "training")
        splits.append(listed.assign(fold=fold + 1, subset=subset))
    return pd.concat(splits, ignore_index=True)


def try_splits(clips: pd.DataFrame, *, protocols: list[str], seeds: list[int], folds: int) -> tuple[dict, dict]:
    """(protocol, seed) -> `make_splits`, whatever the clips' folders give; protocol -> why it cannot split them."""
    splits, skipped = {}, {}
    for protocol in protocols:
        try:
            splits |= {(protocol, seed): make_splits(
                clips.assign(given_split=""), protocol=protocol, folds=folds, seed=seed) for seed in seeds}
        except ValueError as error:
            skipped[protocol] = str(error)
    return splits, skipped


def cut_parts(clips: pd.DataFrame, group_column: str | None, folds: int, seed: int) -> np.ndarray:
    """The number of each clip's part, from 0; no group is in two parts, and classes are spread evenly."""
    labels, groups = clips["class"], clips[group_column or "clip"]
    if not group_column and labels.value_counts().max() < 2:
        raise ValueError(f"{len(clips)} clips, each of another class, cannot be cut into parts: add clips")
    if groups.nunique() < 2:
        raise ValueError(f"a split by {group_column} needs at least two of them; all {len(clips)} clips are of "
                         f"{group_column} {groups.iloc[0]!r}. Use the protocol stratified, or add clips")
    folds = max(2, min(folds, groups.nunique(), labels.value_counts().max()))
    cutter = (StratifiedGroupKFold if group_column else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    parts = np.zeros(len(clips), dtype=int)
    # Classes with fewer clips than parts: the audit reports them.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        for part, (_, chosen) in enumerate(cutter.split(clips, labels, groups)):
            parts[chosen] = part
    return np.unique(parts, return_inverse=True)[1]  # a large group may leave a part empty


def _deal_out(labels: pd.Series, shares: list[int], seed: int) -> np.ndarray:
    """The subsets of clips in the shares given, rounded to whole clips, at least one each; classes spread evenly."""
    mixed = labels.reset_index(drop=True).sample(frac=1, random_state=seed)
    # A clip's place in its class, 0-1: in the order of these places all classes come up side by side.
    places = (mixed.groupby(mixed).cumcount() + 0.5) / mixed.map(mixed.value_counts())
    order = places.sort_values(kind="stable").index
    validation, testing = (max(1, round(len(labels) * share / sum(shares))) for share in shares[1:])
    if validation + testing >= len(labels):
        raise ValueError(f"the shares {shares} leave none of {len(labels)} clips to train on")
    subset = np.full(len(labels), "training", dtype=object)
    subset[order[:testing]], subset[order[testing:testing + validation]] = "testing", "validation"
    return subset


def _complete_given(clips: pd.DataFrame, seed: int) -> np.ndarray:
    """The subsets that folders give; where none validates, a fifth of the training clips does."""
    subset = clips["given_split"].replace("", "training").to_numpy(dtype=object)
    if "testing" not in subset:
        raise ValueError("the folders give a split without test clips: add a folder test/ (or name val/ so: a fifth of "
                         "the training clips then validates), or move all clips out of train/ and val/")
    if "validation" not in subset:
        rest = np.flatnonzero(subset == "training")
        if len(rest) < 2:
            raise ValueError(f"the folders give {len(rest)} clips to train on and to validate with, at least 2 are "
                             "needed: add clips to train/, or move all clips out of train/, val/ and test/")
        column = "recording" if clips.iloc[rest]["recording"].nunique() > 1 else None
        subset[rest[cut_parts(clips.iloc[rest], column, 5, seed) == 0]] = "validation"
    if "training" not in subset:
        raise ValueError("the folders give a split without training clips: add train/, or remove val/ and test/")
    return subset
