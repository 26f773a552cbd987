"""How the models do on real clips, which cannot ship with the project: python -m benchmarks.real_clips FOLDER.

FOLDER holds handwash/<Class>/*.mp4 (names as HandWash_002_A_01_G01) and falls/fall/*, falls/adl/* (names as
subject_1_13). Prints the table, and writes it with date and commit to published/real_clips.yaml.
"""

import datetime
import hashlib
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import joblib
import numpy as np
import torch
import typer
import yaml

from health_actions.analysis.recognition import NONE, UNSEEN, LandmarkRecogniser, Recogniser
from health_actions.analysis.studies import load_recogniser
from health_actions.data.clips import read_handwash_name, read_ntu_name
from health_actions.data.transforms import mirror_class
from health_actions.learning.landmark_training import train_stream
from health_actions.learning.landmarks import predict_rows, sample_landmarks
from health_actions.learning.scores import wilson_interval
from health_actions.models.landmark_stream import LandmarkStream, join_values
from health_actions.params import read_params
from health_actions.paths import find_root, write_text
from health_actions.progress import track

SECOND_SESSION = ("006", "007", "008")  # of the hand-wash recordings; another day, as the pictures show
SEEDS = 3


def list_videos(folder: Path) -> list[Path]:
    """Videos in folders of classes; of byte-identical ones the first."""
    files = {hashlib.sha256(path.read_bytes()).digest(): path for path in sorted(folder.glob("*/*"), reverse=True)}
    return sorted(path for path in files.values() if path.suffix.lower() in (".mp4", ".avi"))


def read_rows(path: Path, kind: str) -> torch.Tensor:
    """Rows of a video for a landmark stream."""
    pairs = list(sample_landmarks(path, kind))
    found = {name: np.stack([each[name] for _, each in pairs]) for name in pairs[0][1]}
    height, width = pairs[0][0].shape[:2]
    return torch.from_numpy(join_values(found, width / height, kind))


def train_and_answer(rows: list, labels: np.ndarray, groups: np.ndarray, classes: list[str], kind: str,
                     epochs: int = 100) -> np.ndarray:
    """Whether each clip is answered right by streams that never saw its group."""
    mirrored = [classes.index(mirror_class(name, classes)) for name in classes]

    def train(group, seed: int) -> LandmarkStream:
        torch.set_num_threads(1)
        learned = np.flatnonzero(groups != group)
        return train_stream([rows[number] for number in learned], labels[learned].tolist(), kind, mirrored,
                            epochs=epochs, seed=seed)

    pairs = [(group, seed) for group in sorted(set(groups)) for seed in range(SEEDS)]
    streams = list(zip(pairs, joblib.Parallel(n_jobs=-1)(joblib.delayed(train)(*pair) for pair in pairs), strict=True))
    shares = [sum(predict_rows(stream, part) for (tested, _), stream in streams if tested == group)
              for part, group in zip(rows, groups, strict=True)]
    return np.stack(shares).argmax(axis=1) == labels


def recognise(recogniser: Recogniser | LandmarkRecogniser, path: Path) -> str:
    """The answer to a clip."""
    return recogniser.recognise(path).action


def watch(recogniser: Recogniser | LandmarkRecogniser, path: Path) -> set[str]:
    """The answers to the windows of a clip."""
    return {answer.action for answer in recogniser.watch(path)}


def each_video(ask: Callable, videos: list[Path], title: str) -> list:
    """What is asked of each video, several at a time."""
    work = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        joblib.delayed(ask)(path) for path in videos)
    return list(track(work, total=len(videos), title=title))


def main(folder: Annotated[Path, typer.Argument(help="Holds handwash/ and falls/.")]) -> None:
    """Measure, print and write published/real_clips.yaml."""
    root, table = find_root(), {}

    def note(name: str, right: np.ndarray | list) -> None:
        count, total = int(np.sum(right)), len(right)
        low, high = wilson_interval(count, total)  # over clips: for these few people, not for others
        table[name] = {"clips": total, "counted": count, "share": round(count / total, 3), "low": round(low, 3),
                       "high": round(high, 3)}
        print(f"{name}: {count} of {total} ({count / total:.2f}, 95 % interval {low:.2f} to {high:.2f})", flush=True)

    classes = read_params(root)["handwash"]["classes"]
    videos = list_videos(folder / "handwash")
    labels = np.array([classes.index(path.parent.name.lower()) for path in videos])
    recordings = np.array([read_handwash_name(path.stem, classes).recording for path in videos])
    for model in ("landmarks", "best"):
        recogniser = load_recogniser(root, "handwash", model)
        answers = each_video(partial(recognise, recogniser), videos, f"hand wash, {model}")
        note(f"handwash, trained on synthetic clips, {model}", np.array(answers) == np.array(classes)[labels])
        note(f"handwash, called none of these, {model}", np.isin(answers, [NONE, UNSEEN["hands"]]))
    rows = each_video(lambda path: read_rows(path, "hands"), videos, "landmarks")
    note("handwash, trained on real clips, by recording", train_and_answer(rows, labels, recordings, classes, "hands"))
    session = np.isin(recordings, SECOND_SESSION)
    right = train_and_answer(rows, labels, session, classes, "hands", epochs=600)  # of 20 or 45 clips: a step each
    note("handwash, trained on real clips, second session", right[session])
    note("handwash, trained on real clips, first session", right[~session])

    videos = list_videos(folder / "falls")
    falls = np.array([path.parent.name == "fall" for path in videos])
    for model in ("landmarks", "best"):
        recogniser = load_recogniser(root, "ntu", model)
        seen = each_video(partial(watch, recogniser), videos, f"falls, {model}")
        alarms = np.array(["falling_down" in actions for actions in seen])
        note(f"falls found, trained on synthetic clips, {model}", alarms[falls])
        note(f"false alarms in everyday clips, {model}", alarms[~falls])
        calm = {"everyday", NONE, UNSEEN["pose"]}
        actions = each_video(partial(recognise, recogniser), videos, f"everyday, {model}")
        note(f"everyday clips called a medical action, {model}",
             [action not in calm for action, fall in zip(actions, falls, strict=True) if not fall])
    rows = each_video(lambda path: read_rows(path, "pose"), videos, "landmarks")
    people = np.array([read_ntu_name(path.stem, []).recording for path in videos])
    note("falls against everyday, trained on real clips, by subject",
         train_and_answer(rows, falls.astype(int), people, ["everyday", "fall"], "pose"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout
    write_text(root / "published" / "real_clips.yaml", yaml.safe_dump({
        "measured": datetime.date.today().isoformat(), "commit": commit.strip(), "table": table}, sort_keys=False))


if __name__ == "__main__":
    typer.run(main)
