"""The annotation files that the published code bases read, and the audit of a split."""

import json
from pathlib import Path

import pandas as pd

from health_actions.data.splits import SUBSETS
from health_actions.paths import write_text

LIST_NAMES = {"training": "trainlist", "validation": "vallist", "testing": "testlist"}


def write_annotations(output: Path, study: str, splits: pd.DataFrame, frames: dict[str, int], classes: list[str], *,
                      names: dict[str, str] | None = None) -> None:
    """Write classInd.txt and, for each fold 01, 02, ..., the lists and the ActivityNet-style JSON.

    Args:
        output: folder to write to.
        study: name of the JSON files (`<study>_01.json`).
        splits: one row a clip and fold, as of `make_splits`.
        frames: number of frames of each clip.
        classes: all classes in order; their numbers in the lists start from 1.
        names: of the clips, where the files call them otherwise (see `name_folders`); lists then say `<class>/<name>`.
    """
    output = Path(output)
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    write_text(output / "classInd.txt", "".join(f"{number} {name}\n" for name, number in numbers.items()))
    for fold, rows in splits.groupby("fold"):
        for subset, name in LIST_NAMES.items():
            chosen = rows[rows["subset"] == subset]
            lines = [f"{f'{label}/{names[clip]}' if names else clip} {numbers[label]}\n"
                     for clip, label in zip(chosen["clip"], chosen["class"], strict=True)]
            write_text(output / f"{name}{fold:02d}.txt", "".join(lines))
        database = {
            names[row["clip"]] if names else row["clip"]: {"subset": row["subset"],
                                                           "annotations": {"label": row["class"],
                                                                           "segment": [1, int(frames[row["clip"]])]}}
            for row in rows.to_dict("records")
        }
        text = json.dumps({"labels": classes, "database": database}, indent=1)
        write_text(output / f"{study}_{fold:02d}.json", text + "\n")


def count_clips(splits: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Clips per class and subset of the first fold, all classes and subsets present: class x subset."""
    first = splits[splits["fold"] == splits["fold"].min()]
    return pd.crosstab(first["class"], first["subset"]).reindex(index=classes, columns=SUBSETS, fill_value=0)


def audit_splits(splits: pd.DataFrame, duplicates: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What stands on both sides of training and testing, fold by fold.

    Returns:
        One row a fold: fold, clips in each subset, shared_recordings, shared_scenes and, where splits tell takes,
        shared_takes (those of the test clips that training or validation clips also have), shared_duplicates (test
        clips that also stand in training or validation) and classes_not_trained (tested classes without a training
        clip).
    """
    there = duplicates[["clip", "other"]]
    pairs = pd.concat([there, there.rename(columns={"clip": "other", "other": "clip"})])
    rows = []
    for fold, clips in splits.groupby("fold"):
        seen = clips[clips["subset"] != "testing"]
        tested = clips[clips["subset"] == "testing"]
        trained = clips[clips["subset"] == "training"]
        both = pairs.loc[pairs["clip"].isin(tested["clip"]) & pairs["other"].isin(seen["clip"]), "clip"]
        missing = set(tested["class"]) - set(trained["class"])
        rows.append({"fold": fold,
                     **{subset: int((clips["subset"] == subset).sum()) for subset in SUBSETS},
                     "shared_recordings": len(set(seen["recording"]) & set(tested["recording"])),
                     "shared_scenes": len((set(seen["scene"]) & set(tested["scene"])) - {"unknown"}),
                     **({"shared_takes": len(set(seen["take"]) & set(tested["take"]))} if "take" in clips else {}),
                     "shared_duplicates": both.nunique(),
                     "classes_not_trained": " ".join(name for name in classes if name in missing)})
    return pd.DataFrame(rows)
