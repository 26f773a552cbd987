"""From videos to frames: each clip decoded once, sampled (study A) or whole (study B), kept as one file."""

import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from PIL import Image

from health_actions.clips import NoClips, find_clips
from health_actions.frames import COUNT, PICTURE, ClipArchive, name_folders
from health_actions.paths import replacing
from health_actions.progress import track
from health_actions.video import UnreadableVideo, probe, read_frames, stream_frames

SHORTEST = 8  # frames of a clip that can be used; what is shorter than a model's window is played again and again


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
    """Decode every clip of `folder` and keep its sampled frames in `output`, as study A needs them.

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
    settings = {"sizes": list(sizes), "length": length, "stride": stride}
    return _extract_all(Path(folder), Path(output), find_clips(folder, classes), _write_samples, settings,
                        {"length": length, "stride": stride}, processes)


def extract_archives(folder: Path, output: Path, classes: list[str], *, height: int, quality: int = 90,
                     naming: str = "ntu", processes: int = -1) -> pd.DataFrame:
    """Decode every clip of `folder` and keep all its frames as JPEG pictures, as study B needs them.

    Writes `<output>/<clip>.zip`, which holds image_00001.jpg, image_00002.jpg, ... and n_frames (their number, as
    text), and `<output>/index.csv`. One archive a clip, since a data set as single pictures takes DVC minutes a stage;
    `unpack_archives` makes the folders that the published code reads. What is there already is kept, as
    `extract_frames` does.

    Args:
        folder, classes, naming: as `find_clips` takes them.
        output: folder to write to.
        height: of the pictures, pixels (the paper: 240); their width follows.
        quality: of the JPEG pictures, 1-95.
        processes: clips decoded at a time; -1: one for each core.

    Returns:
        The index as of `extract_frames`; length is the number of frames, stride 1.

    Raises:
        NoClips: when no clip at all can be used; lists the reasons.
    """
    return _extract_all(Path(folder), Path(output), find_clips(folder, classes, naming), _write_archive,
                        {"height": height, "quality": quality}, {"length": 0, "stride": 1}, processes)


def unpack_archives(frames: Path, index: pd.DataFrame, output: Path) -> int:
    """Write every clip of an index as `<output>/<class>/<clip>/image_00001.jpg`, ... and n_frames; returns how many.

    That is the form in which the code bases of the paper read frames. Clips that are there already are kept.
    """
    usable = index[index["status"] == "ok"]
    names = name_folders(usable)
    for clip, label in track(zip(usable["clip"], usable["class"]), total=len(usable), title="clips unpacked"):
        folder = Path(output) / label / names[clip]
        if (folder / COUNT).is_file():  # written last
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(Path(frames) / f"{clip}.zip") as archive:
            for name in archive.namelist():
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(archive.read(name))
    return len(usable)


def _extract_all(folder: Path, output: Path, clips: pd.DataFrame, write, settings: dict, facts: dict,
                 processes: int) -> pd.DataFrame:
    suffix = SUFFIX_OF[write]
    jobs = (joblib.delayed(_extract)(folder, output, row, write, settings, facts) for row in clips.to_dict("records"))
    results = joblib.Parallel(n_jobs=processes, return_as="generator")(jobs)
    index = pd.DataFrame(track(results, total=len(clips), title="clips decoded"))
    index["status"] = np.where(index["reason"] == "", "ok", "left out")
    usable = index[index["status"] == "ok"]
    if usable.empty:
        reasons = "\n".join(f"  {row.path}: {row.reason}" for row in index.head(12).itertuples())
        raise NoClips(f"none of the {len(index)} files in {folder.name} can be used:\n{reasons}")
    keep = {output / f"{clip}{suffix}" for clip in usable["clip"]}
    for file in output.rglob(f"*{suffix}"):
        if file not in keep:
            file.unlink()
    for empty in sorted((path for path in output.rglob("*") if path.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            empty.rmdir()
    with replacing(output / "index.csv") as temporary:
        index.to_csv(temporary, index=False)
    return index


def _extract(folder: Path, output: Path, row: dict, write, settings: dict, facts: dict) -> dict:
    facts = {"frames": 0, "fps": 0.0, "duration": 0.0, "width": 0, "height": 0, "synthetic": False,
             "content": "", **facts}
    source, target = folder / row["path"], output / f"{row['clip']}{SUFFIX_OF[write]}"
    try:
        facts["content"] = hashlib.sha256(source.read_bytes()).hexdigest()
        if not row["reason"]:
            video = probe(source)
            facts |= {"frames": video.frames, "fps": round(video.fps, 3), "duration": round(video.duration, 3),
                      "width": video.width, "height": video.height, "synthetic": video.synthetic}
            recipe = json.dumps({**settings, "content": facts["content"]})
            facts |= write(source, target, video.frames, recipe, settings)
    except UnreadableVideo as error:
        row = {**row, "reason": str(error)}
    except PermissionError:
        row = {**row, "reason": "no permission to read the file"}
    reason, note = row.pop("reason"), row.pop("note")
    return {**row, **facts, "reason": reason, "note": note}


def _write_samples(source: Path, target: Path, frames: int, recipe: str, settings: dict) -> dict:
    indices = sample_indices(frames, length=settings["length"], stride=settings["stride"])
    if _recipe(target) != recipe:
        arrays = {str(size): taken for size, taken in read_frames(source, indices, settings["sizes"]).items()}
        with replacing(target) as temporary:
            np.savez_compressed(temporary, recipe=np.array(recipe), **arrays)
    return {}


def _write_archive(source: Path, target: Path, frames: int, recipe: str, settings: dict) -> dict:
    if frames < SHORTEST:
        raise UnreadableVideo(f"too short: {frames} frames, at least {SHORTEST} are needed")
    if _archive_recipe(target) != recipe:
        with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            number = 0
            for number, frame in enumerate(stream_frames(source, settings["height"]), start=1):
                picture = io.BytesIO()
                Image.fromarray(frame).save(picture, "JPEG", quality=settings["quality"])
                archive.writestr(zipfile.ZipInfo(PICTURE.format(number)), picture.getvalue())
            archive.writestr(zipfile.ZipInfo(COUNT), str(number))
            archive.comment = recipe.encode()
    return {"length": len(ClipArchive(target))}


SUFFIX_OF = {_write_samples: ".npz", _write_archive: ".zip"}


def _recipe(target: Path) -> str | None:
    """What the file of an earlier run was made from; None where there is none or it cannot be read."""
    try:
        with np.load(target, allow_pickle=False) as arrays:
            return str(arrays["recipe"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _archive_recipe(target: Path) -> str | None:
    try:
        with zipfile.ZipFile(target) as archive:
            return archive.comment.decode()
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
