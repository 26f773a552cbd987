"""Splits that were made elsewhere: lists of clips, or the JSON made of them; `write_annotations` writes the same."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from health_actions.data.clips import NTU_ACTIONS
from health_actions.data.frames import name_folders
from health_actions.data.video import SUFFIXES

# "Sneeze or Cough/S015C003P037R002A041" 41; and 41 sneezeCough of classInd.txt.
LINE = re.compile(r'(?P<name>".+"|.+?)\s+(?P<number>\d{1,9})')
INDEX_LINE = re.compile(r"(?P<number>\d{1,9})\s+(?P<name>.+)")
LISTS = {"trainlist": "training", "vallist": "validation", "testlist": "testing"}


class Entry(NamedTuple):
    """A clip that a list names."""

    place: str  # file and line
    name: str
    subset: str
    label: str  # its class; empty where the list's name or number for it is no class of the clips


def read_lists(folder: Path, clips: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The split of `trainlist01.txt`, `testlist01.txt` and, if there is one, `vallist01.txt`, or else of `ntu_01.json`.

    A line is a clip's name, in quotes where it has spaces, and the number of its class; `classInd.txt` names these,
    else they are NTU's. 02, 03, ... are further folds. A clip is found by its name or, whatever its folder is called
    there, by the last part of it; suffixes and _rgb do not count. One in several lists is taken from the last of
    training, validation and test, as in the published JSON, so that no test clip trains. Where a JSON has no test clips
    its validation clips are them: the published code has no third part.

    Args:
        clips: one row a clip in use: clip, class.

    Returns:
        The clips that are named: clip, fold, given_split. And, one row each, what does not fit: fold, clip, note.

    Raises:
        FileNotFoundError, ValueError: where there are no such lists, one is damaged, names another class than the clip
            has, or leaves no clips to train on or to test with.
    """
    labels = dict(zip(clips["clip"], clips["class"], strict=True))
    keys = {_plain(name): clip for clip, name in name_folders(clips).items()}
    keys |= {_plain(clip): clip for clip in labels}
    given, notes = [], []
    for fold, entries in _find_entries(Path(folder), set(labels.values())):
        found = {}
        for entry in entries:
            clip = keys.get(_plain(entry.name)) or keys.get(_plain(entry.name.rpartition("/")[2]))
            if clip is None:
                notes.append((fold, entry.name, f"named in {entry.place}, but not among the clips in use"))
                continue
            if entry.label and entry.label != labels[clip]:
                raise ValueError(f"{entry.place}: {entry.name} is said to be {entry.label}, the clip {clip} is "
                                 f"{labels[clip]}")
            if found.setdefault(clip, entry).subset != entry.subset:
                notes.append((fold, clip, f"in {found[clip].place}, too: used for {entry.subset} alone"))
            found[clip] = entry
        subsets = {clip: entry.subset for clip, entry in found.items()}
        for subset in ("training", "testing"):
            if subset not in subsets.values():
                raise ValueError(f"the lists of fold {fold} in {folder} leave no {subset} clips: "
                                 f"{len(found)} of {len(clips)} clips are named there")
        given += [(clip, fold, subset) for clip, subset in subsets.items()]
        notes += [(fold, clip, "there, but in no list: not used") for clip in labels if clip not in subsets]
    return (pd.DataFrame(given, columns=["clip", "fold", "given_split"]),
            pd.DataFrame(notes, columns=["fold", "clip", "note"]))


def _find_entries(folder: Path, classes: set[str]) -> Iterator[tuple[int, list[Entry]]]:
    """Fold -> its entries, training before validation before testing."""
    lists = sorted(folder.glob("trainlist[0-9][0-9].txt"))
    files = lists or sorted(folder.glob("*_[0-9][0-9].json"))
    if not files:
        raise FileNotFoundError(f"no trainlist01.txt and no JSON like ntu_01.json in {folder}: `lists` of the section "
                                "annotations in params.yaml names their folder")
    if len({file.stem[-2:] for file in files}) < len(files):
        raise ValueError(f"{folder} has several JSON of one fold: {', '.join(file.name for file in files)}; leave one")
    for file in files:
        entries = (_read_fold if lists else _read_json)(file, classes)
        yield int(file.stem[-2:]), sorted(entries, key=lambda entry: [*LISTS.values()].index(entry.subset))


def _read_fold(training: Path, classes: set[str]) -> Iterator[Entry]:
    index = training.with_name("classInd.txt")
    named = {number: name for _, name, number in _read_lines(index, INDEX_LINE)} if index.is_file() else NTU_ACTIONS
    for start, subset in LISTS.items():
        file = training.with_name(training.name.replace("trainlist", start))
        for place, name, number in _read_lines(file, LINE) if start != "vallist" or file.is_file() else []:
            if index.is_file() and number not in named:
                raise ValueError(f"{place}: class {number} is none of classInd.txt: {', '.join(map(str, named))}")
            yield Entry(place, name, subset, _find_class(named.get(number, ""), classes))


def _read_lines(file: Path, form: re.Pattern) -> Iterator[tuple[str, str, int]]:
    """Place, name and number of each line that is not empty."""
    if not file.is_file():
        raise FileNotFoundError(f"no {file.name} in {file.parent}")
    for line, text in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").split("\n"), start=1):
        found, place = form.fullmatch(text.strip()), f"{file.name}, line {line}"
        if found:
            name = found["name"]
            quoted = len(name) > 2 and name[0] == name[-1] == '"'
            yield place, name[1:-1].replace('""', '"') if quoted else name, int(found["number"])
        elif text.strip():
            wanted = "a clip and the number of its class" if form is LINE else "a number and the name of a class"
            raise ValueError(f"{place}: expected {wanted}, found {text.strip()[:80]!r}")


def _read_json(file: Path, classes: set[str]) -> list[Entry]:
    try:
        database = json.loads(file.read_bytes())["database"]
        rows = [(str(name), str(one["subset"]), str(one["annotations"]["label"])) for name, one in database.items()]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON of clips with subset and label: {error!r}") from None
    subsets = {subset: subset for subset in LISTS.values()}
    if "testing" not in {subset for _, subset, _ in rows}:
        subsets["validation"] = "testing"
    for name, subset, _ in rows:
        if subset not in subsets:
            raise ValueError(f"{file.name}, {name}: unknown subset {subset!r}; known: {', '.join(subsets)}")
    return [Entry(file.name, name, subsets[subset], _find_class(label, classes)) for name, subset, label in rows]


def _find_class(name: str, classes: set[str]) -> str:
    """The class of this name, however it is written (sneezeCough, Sneeze cough); "" for none."""
    letters = {re.sub(r"[\W_]+", "", label).lower(): label for label in classes}
    return letters.get(re.sub(r"[\W_]+", "", name).lower(), "")


def _plain(name: str) -> str:
    stem = name[:-len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
    return stem.casefold().removesuffix("_rgb")
