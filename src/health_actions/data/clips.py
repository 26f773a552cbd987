"""The catalogue: which clips lie in a data folder, and what their folders and names say about them."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from health_actions.data.video import SUFFIXES

SPLIT_FOLDERS = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "testing", "testing": "testing",
}
# HandWash_009_A_02_G_02: recording 009, action 02, scene G02; the last underscore is missing in some of the files.
HANDWASH_NAME = re.compile(r"HandWash_(?P<recording>\d+)_A_?(?P<action>\d+)_(?P<scene>G_?\d+)$", re.IGNORECASE)
# S001C002P003R001A043_rgb: setup, camera, performer, repetition, action of NTU RGB+D.
NTU_NAME = re.compile(r"(?P<setup>S\d{3})(?P<camera>C\d{3})(?P<performer>P\d{3})(?P<repetition>R\d{3})"
                      r"A(?P<action>\d{3})(?:_rgb)?$", re.IGNORECASE)
# Sets of other publishers tell at least the person: subject_3_07, person12-fall.
PERSON_NAME = re.compile(r"(?:subject|person|performer|actor)[ _-]?\d+", re.IGNORECASE)
# Names of NTU RGB+D's actions by their numbers (Shahroudy et al., 2016), those for one person.
NTU_ACTIONS = dict(enumerate("""
    drink_water eat_meal brush_teeth brush_hair drop pick_up throw sit_down stand_up clapping reading writing
    tear_up_paper put_on_jacket take_off_jacket put_on_shoe take_off_shoe put_on_glasses take_off_glasses put_on_hat
    take_off_hat cheer_up hand_waving kicking reach_into_pocket hopping jump_up phone_call play_with_phone
    type_on_keyboard point taking_selfie check_time rub_hands bow shake_head wipe_face salute put_palms_together
    cross_hands sneeze_cough staggering falling_down headache chest_pain back_pain neck_pain nausea_vomiting fan_self
    """.split(), start=1))


class NoClips(ValueError):
    """The data folder holds nothing that could be used; the message shows what was expected and what was found."""


@dataclass(frozen=True)
class Name:
    """What a file's name tells.

    Args:
        recording: the person (study B), or the recording of one person (study A); the name itself where it tells none.
        scene: the sink (study A), or the camera's place (study B); "unknown" where it tells none.
        take: what several cameras filmed at once; empty where it tells none.
        action: name of the action; empty where it tells none.
    """

    recording: str
    scene: str
    take: str
    action: str


def read_handwash_name(stem: str, classes: list[str]) -> Name:
    """`HandWash_009_A_02_G_02`: recording 009, action 02, scene G02; `classes` are in the order of the actions."""
    name = HANDWASH_NAME.match(stem)
    if not name:
        return Name(stem, "unknown", "", "")
    number = int(name["action"])
    action = classes[number - 1] if 1 <= number <= len(classes) else f"A{number:02d}"
    return Name(name["recording"], name["scene"].upper().replace("G_", "G"), "", action)


def read_ntu_name(stem: str, classes: list[str]) -> Name:
    """`S001C002P003R001A043_rgb`: performer P003, camera C002, action 43, falling_down; or `subject_3_07`: a person."""
    name = NTU_NAME.match(stem)
    if not name:
        person = PERSON_NAME.match(stem)
        return Name(person[0].lower() if person else stem, "unknown", "", "")
    take = "".join(name[part] for part in ("setup", "performer", "repetition")) + f"A{name['action']}"
    action = NTU_ACTIONS.get(int(name["action"]), f"A{name['action']}")
    return Name(name["performer"].upper(), name["camera"].upper(), take.upper(), action)


NAMINGS = {"handwash": read_handwash_name, "ntu": read_ntu_name}


def find_clips(folder: Path, classes: list[str], naming: str = "handwash") -> pd.DataFrame:
    """List every file that lies where a clip is expected, usable or not.

    Clips lie in `<folder>/<Class>/` or `<folder>/<split>/<Class>/`; class folders are spelled as in `classes`, upper
    and lower case and -, _ and blanks being the same. With the naming "ntu" files of NTU RGB+D may also lie in `folder`
    itself, since their names tell the class.

    Args:
        folder: the clips of one study.
        classes: all classes in order.
        naming: "handwash" or "ntu": how names are read, see `read_handwash_name` and `read_ntu_name`.

    Returns:
        One row a file, ordered by `clip` (its path without suffix): clip, path (relative to `folder`), class,
        recording, scene and, of NTU clips, take (see `Name`), given_split (training, validation, testing or empty),
        reason (empty, or why the file is left out) and note (what is odd about it, though it is used).

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
        name = NAMINGS[naming](path.stem, classes)
        by_name = not class_folder and naming == "ntu"
        if (not class_folder and not by_name) or (split and not in_split):
            continue
        label = known.get(_plain(name.action if by_name else class_folder), "")
        reason, note = "", ""
        if by_name and not name.action:
            reason = "neither in a class folder nor named like S001C001P001R001A043_rgb.avi"
        elif not label:
            reason = f"action {name.action} is none of the classes" if by_name else \
                f"unknown class folder {class_folder!r}"
        elif path.suffix.lower() not in SUFFIXES:
            reason = f"no video by its name; expected one of {' '.join(SUFFIXES)}"
        elif name.action and name.action != label:
            note = f"its name says action {name.action}, its folder {label}"
        rows.append({
            "clip": path.relative_to(folder).with_suffix("").as_posix(),
            "path": path.relative_to(folder).as_posix(),
            "class": label,
            "recording": name.recording,
            "scene": name.scene,
            **({"take": name.take or path.relative_to(folder).with_suffix("").as_posix()} if naming == "ntu" else {}),
            "given_split": SPLIT_FOLDERS[split[0].lower()] if in_split else "",
            "reason": reason,
            "note": note,
        })
    if not rows:
        raise NoClips(_explain_empty(folder, classes, naming))
    clips = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    usable = clips[clips["reason"] == ""]
    again = usable.index[usable["clip"].duplicated()]
    clips.loc[again, "reason"] = "another file has the same name with another suffix"
    return clips


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _explain_empty(folder: Path, classes: list[str], naming: str) -> str:
    name, first, last = folder.name, classes[0].title(), classes[-1].title()
    if naming == "ntu":
        expected = [f"  {name}/S001C001P001R001A043_rgb.avi (as NTU RGB+D names its files)"]
    else:
        expected = [f"  {name}/{first}/HandWash_001_A_01_G_01.mp4"]
    expected += [f"  {name}/{last}/any_name.mp4",
                 f"  {name}/train/{last}/any_name.mp4 (where the folders give the split)"]
    if not folder.is_dir():
        found = ["  no such folder"]
    else:
        found = [f"  {name}/{path.relative_to(folder).as_posix()}" for path in sorted(folder.rglob("*"))[:12]]
    return "\n".join([f"no clips in {name}. Expected clips like", *expected, "Found",
                      *(found or ["  an empty folder"])])
