"""The annotation files that the published code bases read, and what training and test clips share."""

import json
from pathlib import Path

import pandas as pd

from health_actions.data.clips import NTU_ACTIONS
from health_actions.data.lists import LISTS
from health_actions.data.splits import SUBSETS
from health_actions.paths import write_text


def write_annotations(output: Path, study: str, splits: pd.DataFrame, frames: dict[str, int], classes: list[str], *,
                      names: dict[str, str] | None = None) -> None:
    """Write classInd.txt and, for each fold 01, 02, ..., the lists and the ActivityNet-style JSON, `<study>_01.json`.

    `frames` is clip -> its number of frames. `names` is clip -> its name in the files (see `name_folders`); the lists
    then hold `<class>/<name>`, in quotes where it has spaces. Classes are numbered as by NTU (41 sneeze_cough) where
    all are NTU's, else from 1.
    """
    numbers = {name: number for number, name in NTU_ACTIONS.items()}
    if study != "ntu" or not numbers.keys() >= {*classes}:
        numbers = {name: number for number, name in enumerate(classes, start=1)}
    write_text(output / "classInd.txt", "".join(f"{numbers[name]} {name}\n" for name in classes))
    for fold, rows in splits.groupby("fold"):
        for name, subset in LISTS.items():
            chosen = rows[rows["subset"] == subset]
            clips = chosen["class"] + "/" + chosen["clip"].map(names) if names else chosen["clip"]
            table = pd.DataFrame({"clip": clips, "number": chosen["class"].map(numbers)})
            write_text(output / f"{name}{fold:02d}.txt", table.to_csv(sep=" ", header=False, index=False))
        database = {names[row["clip"]] if names else row["clip"]: {
            "subset": row["subset"], "annotations": {"label": row["class"], "segment": [1, int(frames[row["clip"]])]}}
            for row in rows.to_dict("records")}
        write_text(output / f"{study}_{fold:02d}.json",
                   json.dumps({"labels": classes, "database": database}, indent=1) + "\n")


def count_clips(splits: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Clips per class and subset of the first fold, all classes and subsets present: class x subset."""
    first = splits[splits["fold"] == splits["fold"].min()]
    return pd.crosstab(first["class"], first["subset"]).reindex(index=classes, columns=SUBSETS, fill_value=0)


def audit_splits(splits: pd.DataFrame, duplicates: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What training and validation clips share with test clips, fold by fold.

    One row a fold: fold, clips in each subset, shared_recordings, shared_scenes (without "unknown"), shared_takes (if
    any), shared_duplicates (test clips with a duplicate in training or validation), classes_not_trained (but tested).
    """
    found = duplicates[["clip", "other"]]
    pairs = pd.concat([found, found.rename(columns={"clip": "other", "other": "clip"})])
    rows = []
    for fold, clips in splits.groupby("fold"):
        seen, tested = clips[clips["subset"] != "testing"], clips[clips["subset"] == "testing"]
        shared = {column: set(seen[column]) & set(tested[column]) - {"unknown" if column == "scene" else None}
                  for column in ("recording", "scene", "take") if column in clips}
        both = pairs.loc[pairs["clip"].isin(tested["clip"]) & pairs["other"].isin(seen["clip"]), "clip"]
        missing = set(tested["class"]) - set(clips.loc[clips["subset"] == "training", "class"])
        rows.append({"fold": fold, **{subset: int((clips["subset"] == subset).sum()) for subset in SUBSETS},
                     **{f"shared_{column}s": len(values) for column, values in shared.items()},
                     "shared_duplicates": both.nunique(),
                     "classes_not_trained": " ".join(name for name in classes if name in missing)})
    return pd.DataFrame(rows)
