"""The catalogue: which clips lie in a data folder, and what their folders and names say about them."""

import re
from pathlib import Path

import pandas as pd

from health_actions.video import SUFFIXES

SPLIT_FOLDERS = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "testing", "testing": "testing",
}
# HandWash_009_A_02_G_02: recording 009, action 02, scene G02; the last underscore is missing in some of the files.
HANDWASH_NAME = re.compile(r"HandWash_(?P<recording>\d+)_A_?(?P<action>\d+)_(?P<scene>G_?\d+)$", re.IGNORECASE)


class NoClips(ValueError):
    """The data folder holds nothing that could be used; the message shows what was expected and what was found."""


def find_clips(folder: Path, classes: list[str]) -> pd.DataFrame:
    """List every file that lies where a clip is expected, usable or not.

    Clips lie in `<folder>/<Class>/` or `<folder>/<split>/<Class>/`; class folders are spelled as in `classes`, upper
    and lower case and -, _ and blanks being the same. Names like `HandWash_009_A_02_G_02.mp4` tell the recording and
    the scene; of any other name the recording is the name itself and the scene is unknown.

    Returns:
        One row a file, ordered by `clip` (its path without suffix): clip, path (relative to `folder`), class,
        recording, scene, given_split (training, validation, testing or empty), reason (empty, or why the file is left
        out) and note (what is odd about it, though it is used).

    Raises:
        NoClips: when the folder is missing or holds no file at such a place.
    """
    folder = Path(folder)
    known = {_plain(name): name for name in classes}
    rows = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        *split, class_folder = parts[:-1] or [""]
        in_split = len(split) == 1 and split[0].lower() in SPLIT_FOLDERS
        if not class_folder or (split and not in_split):
            continue
        label = known.get(_plain(class_folder), "")
        reason = "" if label else f"unknown class folder {class_folder!r}"
        if label and path.suffix.lower() not in SUFFIXES:
            reason = f"no video by its name; expected one of {' '.join(SUFFIXES)}"
        name = HANDWASH_NAME.match(path.stem)
        note = ""
        if name and label and int(name["action"]) != classes.index(label) + 1:
            note = f"its name says action {name['action']}, its folder {label}"
        rows.append({
            "clip": path.relative_to(folder).with_suffix("").as_posix(),
            "path": path.relative_to(folder).as_posix(),
            "class": label,
            "recording": name["recording"] if name else path.stem,
            "scene": name["scene"].upper().replace("G_", "G") if name else "unknown",
            "given_split": SPLIT_FOLDERS[split[0].lower()] if in_split else "",
            "reason": reason,
            "note": note,
        })
    if not rows:
        raise NoClips(_explain_empty(folder, classes))
    clips = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    usable = clips[clips["reason"] == ""]
    again = usable.index[usable["clip"].duplicated()]
    clips.loc[again, "reason"] = "another file has the same name with another suffix"
    return clips


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _explain_empty(folder: Path, classes: list[str]) -> str:
    name, first, last = folder.name, classes[0].title(), classes[-1].title()
    expected = [f"  {name}/{first}/HandWash_001_A_01_G_01.mp4", f"  {name}/{last}/any_name.mp4",
                f"  {name}/train/{last}/any_name.mp4 (where the folders give the split)"]
    if not folder.is_dir():
        found = ["  no such folder"]
    else:
        found = [f"  {name}/{path.relative_to(folder).as_posix()}" for path in sorted(folder.rglob("*"))[:12]]
    return "\n".join([f"no clips in {name}. Expected a folder a class, like", *expected, "Found",
                      *(found or ["  an empty folder"])])
