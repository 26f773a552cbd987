"""Landmarks of a study's clips: found once, stored, and read as rows for a landmark stream, which answers for them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

from health_actions.data.sandbox import sample_in_sandbox
from health_actions.data.video import UnreadableVideo
from health_actions.models import landmarks
from health_actions.models.landmark_stream import (
    ANSWERING,
    TRACKERS,
    LandmarkStream,
    join_parts,
    join_values,
    mirror_values,
    split_values,
)
from health_actions.models.three_stream import fuse_streams
from health_actions.paths import at_root, atomic_write, place_inside
from health_actions.progress import track

HEIGHT = 240  # pixels of the frames in which landmarks are looked for
EVERY = 0.1  # seconds from one of them to the next
WINDOW = 20  # frames that a landmark stream sees
LONGEST = 60.0  # seconds of a clip


def sample_landmarks(path: Path, kind: str, *, longest: float = LONGEST,
                     read: Callable = sample_in_sandbox) -> Iterator[tuple[np.ndarray, dict]]:
    """Frames of a video, `EVERY` seconds apart, uint8 (240, width, 3), and what is found in each of them.

    Memory does not grow with the video. UnreadableVideo or TooLong: see `video.sample_frames`.
    """
    tracker = TRACKERS[kind]()
    for frame in read(path, height=HEIGHT, every=EVERY, longest=longest):
        yield frame, tracker(frame)


def extract_landmarks(folder: Path, output: Path, index: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Look for landmarks in the clips of `read_index` in `folder`; write each clip's to `<output>/<clip>.npz`.

    A clip whose file is there, made from the same bytes by the same networks, is not looked at again.

    Returns a row a clip: clip, class, frames, found (mean number of hands or people in a frame), reason (why it was
    left out, or empty).
    """
    code = [Path(landmarks.__file__), *sorted(at_root("weights/landmarks").glob("*.onnx"))]
    version = hashlib.sha256(b"".join(file.read_bytes() for file in code)).hexdigest()

    def extract(clip: str, path: str, content: str, label: str) -> dict:
        file, key, row = place_inside(output, f"{clip}.npz"), f"{content} {version} {HEIGHT} {EVERY}", {}
        try:
            if not file.is_file() or str(np.load(file)["key"]) != key:
                pairs = list(sample_landmarks(folder / path, kind))
                found = {name: np.stack([each[name] for _, each in pairs]) for name in pairs[0][1]}
                height, width = pairs[0][0].shape[:2]
                with atomic_write(file) as temporary:
                    np.savez(temporary, **found, key=key, aspect=width / height, times=np.arange(len(pairs)) * EVERY)
            presence = np.load(file)["presence"]
            row = {"frames": len(presence), "found": np.isfinite(presence).sum() / len(presence)}
        except UnreadableVideo as error:
            row = {"reason": str(error)}
        return {"clip": clip, "class": label, "frames": 0, "found": 0.0, "reason": "", **row}

    usable = index[index["status"] == "ok"]
    work = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        joblib.delayed(extract)(*row) for row in usable[["clip", "path", "content", "class"]].itertuples(index=False))
    table = pd.DataFrame(track(work, total=len(usable), title=f"clips searched for {kind}"))
    for file in {*Path(output).rglob("*.npz")} - {Path(output) / f"{clip}.npz" for clip in usable["clip"]}:
        file.unlink()
    return table


def read_landmarks(folder: Path, clip: str) -> dict[str, np.ndarray]:
    """What `extract_landmarks` wrote of a clip; FileNotFoundError where there is nothing."""
    file = place_inside(folder, f"{clip}.npz")
    if not file.is_file():
        raise FileNotFoundError(f"no landmarks at {file}: run make repro first")
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


def read_rows(folder: Path, clips: list[str], kind: str) -> list[torch.Tensor]:
    """The rows (frames, values) of `join_values` of clips."""
    stored = [read_landmarks(folder, clip) for clip in clips]
    return [torch.from_numpy(join_values(found, float(found["aspect"]), kind)) for found in stored]


def cut_windows(rows: torch.Tensor, hop: int = 5) -> torch.Tensor:
    """Windows (windows, `WINDOW`, values) of a clip's rows, `hop` frames apart; a shorter clip is looped."""
    if len(rows) < WINDOW:
        rows = rows[torch.arange(WINDOW) % len(rows)]
    return rows.unfold(0, WINDOW, hop).transpose(1, 2)


@torch.inference_mode()
def predict_windows(network: LandmarkStream, rows: torch.Tensor) -> np.ndarray:
    """Probabilities float64 (windows, classes) of the windows of `cut_windows`, of a clip and its mirror image."""
    windows, heads = cut_windows(rows), ANSWERING[network.kind]
    mirrored = join_parts(mirror_values(split_values(windows, network.kind), network.kind))
    logits = torch.cat([network(windows)[:, heads], network(mirrored)[:, heads, network.mirrored]], dim=1)
    return fuse_streams(logits).double().softmax(1).numpy()


def predict_rows(network: LandmarkStream, rows: torch.Tensor) -> np.ndarray:
    """Probabilities float64 (classes,) of a clip: the mean over its windows."""
    return predict_windows(network, rows).mean(axis=0)
