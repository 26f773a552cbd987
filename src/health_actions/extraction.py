"""From videos to frames: each clip decoded once, sampled as in study A, kept as one small file."""

import hashlib
import json
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from health_actions.clips import NoClips, find_clips
from health_actions.paths import replacing
from health_actions.progress import track
from health_actions.video import UnreadableVideo, probe, read_frames


def sample_indices(frames: int, *, length: int, stride: int) -> np.ndarray:
    """Numbers of the frames to take: every `stride`-th until there are `length`; a short clip has its stride lowered.

    Study A's sampling: 32 frames, every 4th, the stride dropping to 3, 2, 1 while the clip has too few frames.

    Args:
        frames: frames in the clip.
        length: frames to take.
        stride: largest distance between two of them.

    Raises:
        UnreadableVideo: when the clip has fewer frames than `length`.
    """
    if frames < length:
        raise UnreadableVideo(f"too short: {frames} frames, at least {length} are needed")
    if length > 1:
        stride = min(stride, (frames - 1) // (length - 1))
    return np.arange(length) * stride


def extract_frames(folder: Path, output: Path, classes: list[str], *, sizes: list[int], length: int, stride: int,
                   processes: int = -1) -> pd.DataFrame:
    """Decode every clip of `folder` and keep its sampled frames in `output`.

    Writes `<output>/<clip>.npz` with one uint8 array (length, size, size, 3) for each of `sizes`, named by it, and
    `<output>/index.csv`. A clip whose file is there already, from the same bytes by the same settings, is not decoded
    again. Files of clips that are gone are deleted.

    Returns:
        The index, a row a file: as of `find_clips`, and frames, fps, duration (seconds), width, height (pixels),
        synthetic (rendered by this project), content (SHA-256 of the file), length and stride (as asked for),
        status ("ok" or "left out") and reason.

    Raises:
        NoClips: when no clip at all can be used; lists the reasons.
    """
    folder, output = Path(folder), Path(output)
    clips = find_clips(folder, classes)
    settings = {"sizes": list(sizes), "length": length, "stride": stride}
    jobs = (joblib.delayed(_extract)(folder, output, row, settings) for row in clips.to_dict("records"))
    results = joblib.Parallel(n_jobs=processes, return_as="generator")(jobs)
    index = pd.DataFrame(track(results, total=len(clips), title="clips decoded"))
    index["status"] = np.where(index["reason"] == "", "ok", "left out")
    usable = index[index["status"] == "ok"]
    if usable.empty:
        reasons = "\n".join(f"  {row.path}: {row.reason}" for row in index.head(12).itertuples())
        raise NoClips(f"none of the {len(index)} files in {folder.name} can be used:\n{reasons}")
    keep = {output / f"{clip}.npz" for clip in usable["clip"]}
    for file in output.rglob("*.npz"):
        if file not in keep:
            file.unlink()
    for empty in sorted((path for path in output.rglob("*") if path.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            empty.rmdir()
    with replacing(output / "index.csv") as temporary:
        index.to_csv(temporary, index=False)
    return index


def _extract(folder: Path, output: Path, row: dict, settings: dict) -> dict:
    facts = {"frames": 0, "fps": 0.0, "duration": 0.0, "width": 0, "height": 0, "synthetic": False,
             "content": "", "length": settings["length"], "stride": settings["stride"]}
    source, target = folder / row["path"], output / f"{row['clip']}.npz"
    try:
        facts["content"] = hashlib.sha256(source.read_bytes()).hexdigest()
        if not row["reason"]:
            video = probe(source)
            facts |= {"frames": video.frames, "fps": round(video.fps, 3), "duration": round(video.duration, 3),
                      "width": video.width, "height": video.height, "synthetic": video.synthetic}
            indices = sample_indices(video.frames, length=settings["length"], stride=settings["stride"])
            recipe = json.dumps({**settings, "content": facts["content"]})
            if _recipe(target) != recipe:
                arrays = {str(size): frames for size, frames in read_frames(source, indices, settings["sizes"]).items()}
                with replacing(target) as temporary:
                    np.savez_compressed(temporary, recipe=np.array(recipe), **arrays)
    except UnreadableVideo as error:
        row = {**row, "reason": str(error)}
    except PermissionError:
        row = {**row, "reason": "no permission to read the file"}
    reason, note = row.pop("reason"), row.pop("note")
    return {**row, **facts, "reason": reason, "note": note}


def _recipe(target: Path) -> str | None:
    """What the file of an earlier run was made from; None where there is none or it cannot be read."""
    try:
        with np.load(target, allow_pickle=False) as arrays:
            return str(arrays["recipe"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
