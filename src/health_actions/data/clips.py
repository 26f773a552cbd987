"""The catalogue: which clips lie in a data folder, and what their folders and names say."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from health_actions.data.frames import make_unique
from health_actions.data.video import OTHER_SUFFIXES, SUFFIXES
from health_actions.paths import list_files, simplify_name

SPLIT_FOLDERS = {"train": "training", "training": "training", "val": "validation", "valid": "validation",
                 "validation": "validation", "test": "testing", "testing": "testing"}
BREAKS = {"\r", "\n"}  # in a cell, they would cut a row of a table in two
LAYOUT = f"expected <class>/ or <split>/<class>/, where <split> is one of {', '.join(SPLIT_FOLDERS)}"
# HandWash_009_A_02_G_02: recording 009, action 02, scene G02; some files lack the last underscore. A further _T_02: a
# second take.
HANDWASH_NAME = re.compile(r"HandWash_(?P<recording>\d+)_A_?(?P<action>\d+)_(?P<scene>G_?\d+)(?:_T_?\d+)?$",
                           re.IGNORECASE)
# S001C002P003R001A043_rgb: setup, camera, performer, repetition, action of NTU RGB+D.
NTU_NAME = re.compile(r"(?P<setup>S\d{3})(?P<camera>C\d{3})(?P<performer>P\d{3})(?P<repetition>R\d{3})"
                      r"A(?P<action>\d{3})(?:_rgb)?$", re.IGNORECASE)
PERSON_NAME = re.compile(r"(?:subject|person|performer|actor)[ _-]?\d+", re.IGNORECASE)  # as in subject_3_07
# Names of NTU RGB+D's actions by their numbers (Shahroudy et al., 2016), those for one person.
NTU_ACTIONS = dict(enumerate("""
    drink_water eat_meal brush_teeth brush_hair drop pick_up throw sit_down stand_up clapping reading writing
    tear_up_paper put_on_jacket take_off_jacket put_on_shoe take_off_shoe put_on_glasses take_off_glasses put_on_hat
    take_off_hat cheer_up hand_waving kicking reach_into_pocket hopping jump_up phone_call play_with_phone
    type_on_keyboard point taking_selfie check_time rub_hands bow shake_head wipe_face salute put_palms_together
    cross_hands sneeze_cough staggering falling_down headache chest_pain back_pain neck_pain nausea_vomiting fan_self
    """.split(), start=1)) | {80: "squat_down"}  # of NTU RGB+D 120
# 121 and up: everyday actions of the synthetic clips alone, which NTU RGB+D lacks.
NTU_ACTIONS |= dict(enumerate(
    "walk stand_still sit_still kneel lie_down get_up lie_still sit_on_floor".split(), start=121))


class NoClips(ValueError):
    """No clip can be used; the message tells what was expected and what was found."""


class Name(NamedTuple):
    """What a file's name says."""

    recording: str  # the person (study B) or the recording of one person (study A); else the name itself
    scene: str = "unknown"  # the sink (study A) or the camera's place (study B)
    take: str = ""  # one movement that several cameras filmed (study B)
    action: str = ""


def read_handwash_name(stem: str, classes: list[str]) -> Name:
    """Read a name like `HandWash_009_A_02_G_02`; `classes` are in the order of the actions."""
    if not (name := HANDWASH_NAME.match(stem)):
        return Name(stem)
    number = int(name["action"])
    action = classes[number - 1] if 1 <= number <= len(classes) else f"A{number:02d}"
    return Name(name["recording"], name["scene"].upper().replace("G_", "G"), action=action)


def read_ntu_name(stem: str, classes: list[str]) -> Name:
    """Read a name like `S001C002P003R001A043_rgb`, or the person of one like `subject_3_07`."""
    if not (name := NTU_NAME.match(stem)):
        person = PERSON_NAME.match(stem)
        return Name(person[0].lower() if person else stem)
    action = NTU_ACTIONS.get(int(name["action"]), f"A{name['action']}")
    take = name.expand(r"\g<setup>\g<performer>\g<repetition>A\g<action>")
    return Name(name["performer"].upper(), name["camera"].upper(), take.upper(), action)


def find_clips(folder: Path, classes: list[str], naming: str = "handwash") -> pd.DataFrame:
    """List every video, and every other file that lies where a clip is expected; NoClips where none can be used.

    Clips lie in `<folder>/<Class>/` or `<folder>/<split>/<Class>/`. In names of classes case does not matter, and -, _
    and blanks are equal. With the naming "ntu" (else "handwash"), files named as in NTU RGB+D may lie in `folder`, too.
    Links are followed; hidden files and folders are passed over.

    Returns one row a file, ordered by path: clip (the path without suffix; see `make_unique`), path (relative to
    `folder`), class, recording, scene and, of NTU clips, take (see `Name`), given_split (training, validation, testing
    or empty), reason (empty, or why the file, or a folder, is left out) and note (what is odd; the file is used).
    """
    folder, rows = Path(folder), []
    read_name = {"handwash": read_handwash_name, "ntu": read_ntu_name}[naming]
    known = {simplify_name(name): name for name in classes}
    for path, target in list_files(folder) if os.path.isdir(folder) else []:
        text = str(path.relative_to(folder))
        place = Path(text.encode(errors="backslashreplace").decode().replace("\r", r"\r").replace("\n", r"\n"))
        *split, class_folder = place.parts[:-1] or [""]
        given_split = SPLIT_FOLDERS.get(simplify_name("/".join(split))) if split else ""
        by_name = not class_folder and naming == "ntu"
        expected = given_split is not None and (class_folder or by_name)
        is_folder = os.path.isdir(path)
        if not (expected or is_folder or path.suffix.lower() in SUFFIXES + OTHER_SUFFIXES):
            continue
        name, reason, note = read_name(place.stem, classes), "", ""
        label = known.get(simplify_name(name.action if by_name else class_folder), "") if expected else ""
        if str(place) != text:
            reason = f"its name {'has a line break' if {*text} & BREAKS else 'is not UTF-8'}: rename it"
        elif is_folder:
            reason = "a folder that cannot be opened: change its permissions"
        elif not expected:
            reason = f"lies in {place.parent if class_folder else 'no folder'}; {LAYOUT}"
        elif by_name and not name.action:
            reason = "neither in a class folder nor named like S001C001P001R001A043_rgb.avi"
        elif not label:
            reason = f"action {name.action} is no class" if by_name else (
                f"unknown class folder {class_folder!r}; {LAYOUT}")
        elif path.suffix.lower() not in SUFFIXES:
            reason = f"not a video by its suffix; expected one of {' '.join(SUFFIXES)}"
        elif not os.path.isfile(path):
            reason = "no file, or a link that leads nowhere"
        elif name.action and name.action != label:
            note = f"its name says action {name.action}, its folder {label}"
        rows.append({"clip": (place.parent / place.stem).as_posix(), "path": place.as_posix(), "class": label,
                     "recording": name.recording, "scene": name.scene,
                     **({"take": name.take} if naming == "ntu" else {}),
                     "given_split": given_split or "", "reason": reason, "note": note, "target": target})
    if all(row["reason"] for row in rows):
        example = {"handwash": f"{classes[0].title()}/HandWash_001_A_01_G_01.mp4",
                   "ntu": "S001C001P001R001A043_rgb.avi (as NTU RGB+D names its files)"}[naming]
        found = [f"{folder.name}/{row['path']}: {row['reason']}" for row in rows[:12]] or [
            f"{folder.name}/{path.name}" for path in sorted(folder.glob("*"))[:12]]
        raise NoClips("\n  ".join([
            f"no clips in {folder.name}. Expected clips like", f"{folder.name}/{example}",
            f"{folder.name}/{classes[-1].title()}/any_name.mp4",
            f"{folder.name}/train/{classes[-1].title()}/any_name.mp4 (where the folders give the split)\nFound",
            *(found or ["an empty folder" if os.path.isdir(folder) else "no such folder"])]))
    clips = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    first = clips[clips["reason"] == ""].groupby("target")["path"].transform("first")
    again = first[first != clips.loc[first.index, "path"]]
    clips.loc[again.index, "reason"] = "the same file as " + again
    usable = clips[clips["reason"] == ""]
    if (usable["given_split"] != "").any():
        beside = usable.index[usable["given_split"] == ""]
        notes = clips.loc[beside, "note"] + "; in no split folder: it trains or validates"
        clips.loc[beside, "note"] = notes.str.removeprefix("; ")
    clips.loc[usable.index, "clip"] = make_unique(usable["clip"], usable["path"])
    if naming == "ntu":
        clips["take"] = clips["take"].where(clips["take"] != "", clips["clip"])
    return clips.drop(columns="target")
