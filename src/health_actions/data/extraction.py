"""From videos to frames: each clip decoded once, sampled (study A) or whole (study B), kept as one file."""

import faulthandler
import hashlib
import json
import os
import resource
import time
import zipfile
import zlib
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import simplejpeg
from joblib.parallel import get_active_backend

from health_actions.data.clips import NoClips, find_clips
from health_actions.data.engines import list_deaths, start_engine
from health_actions.data.frames import COUNT, PICTURE, ClipArchive, name_folders, open_clip
from health_actions.data.video import UnreadableVideo, probe, read_frames, stream_frames
from health_actions.paths import atomic_write, place_inside
from health_actions.progress import track

HANG = 300.0  # seconds without a frame after which a process that decodes is ended from outside of FFmpeg
MEMORY = 2_000_000_000  # bytes that such a process may take
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
                   processes: int = -1, engine: str = "processes", address: str = "") -> pd.DataFrame:
    """Decode every clip of `folder` and keep its sampled frames in `output`, as study A needs them.

    Writes `<output>/<clip>.npz` with one uint8 array (length, size, size, 3) for each of `sizes`, named by it, and
    `<output>/index.csv`. A clip whose file is there already, from the same bytes by the same settings, is not decoded
    again. Files of clips that are gone are deleted.

    A clip that crashes its decoder or hangs is left out as any other that cannot be used, where it is decoded in a
    process of its own: see `start_engine` for processes, engine and address.

    Returns:
        The index, a row a file: as of `find_clips`, and frames, fps, duration (seconds), width, height (pixels),
        synthetic (rendered by this project), content (SHA-256 of the file), length and stride (as asked for),
        status ("ok" or "left out") and reason.

    Raises:
        NoClips: when no clip at all can be used; lists the reasons.
        DiskFull: when there is no room for the frames; those that are complete are kept.
        ValueError: see `start_engine`.
    """
    settings = {"sizes": list(sizes), "length": length, "stride": stride}
    return _extract_all(Path(folder), Path(output), find_clips(folder, classes), _write_samples, ".npz",
                        settings, {"length": length, "stride": stride}, (engine, address, processes))


def extract_archives(folder: Path, output: Path, classes: list[str], *, height: int, quality: int = 90,
                     naming: str = "ntu", processes: int = -1, engine: str = "processes",
                     address: str = "") -> pd.DataFrame:
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
        processes, engine, address: as `start_engine` takes them.

    Returns:
        The index as of `extract_frames`; length is the number of frames, stride 1.

    Raises:
        NoClips, DiskFull, ValueError: see `extract_frames`.
    """
    return _extract_all(Path(folder), Path(output), find_clips(folder, classes, naming), _write_archive, ".zip",
                        {"height": height, "quality": quality}, {"length": 0, "stride": 1},
                        (engine, address, processes))


def unpack_archives(frames: Path, index: pd.DataFrame, output: Path) -> int:
    """Write every clip of an index as `<output>/<class>/<clip>/image_00001.jpg`, ... and n_frames; returns how many.

    That is the form in which the code bases of the paper read frames. Clips that are there already are kept. Files get
    these names whatever else an archive holds.

    Raises:
        ValueError: for an archive that is none, or a clip or class whose name leads out of its folder.
    """
    usable = index[index["status"] == "ok"]
    names = name_folders(usable)
    for clip, label in track(zip(usable["clip"], usable["class"]), total=len(usable), title="clips unpacked"):
        folder = place_inside(place_inside(output, label), names[clip])
        if (folder / COUNT).is_file():  # written last
            continue
        folder.mkdir(parents=True, exist_ok=True)
        pictures = open_clip(frames, clip).pictures
        named = {PICTURE.format(number): picture for number, picture in enumerate(pictures, start=1)}
        for name, content in {**named, COUNT: str(len(pictures)).encode()}.items():
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(content)
    return len(usable)


def _extract_all(folder: Path, output: Path, clips: pd.DataFrame, write, suffix: str, settings: dict,
                 facts: dict, engine: tuple[str, str, int]) -> pd.DataFrame:
    facts = {"frames": 0, "fps": 0.0, "duration": 0.0, "width": 0, "height": 0, "synthetic": False,
             "content": "", **facts}
    caller = None if engine[1] else os.getpid()  # whose cluster it is, its workers are left alone
    jobs = [(number, folder / row["path"], output / f"{row['clip']}{suffix}", row, write, settings, facts, caller)
            for number, row in enumerate(clips.to_dict("records"))]
    try:
        with start_engine(*engine):
            done = dict(track(_run_jobs(jobs), total=len(jobs), title="clips decoded"))
    except BaseException:
        for file in output.rglob(f".*.part{suffix}"):  # of processes that were ended in the middle
            file.unlink(missing_ok=True)
        raise
    index = pd.DataFrame([done[number] for number in range(len(jobs))])
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
    with atomic_write(output / "index.csv") as temporary:
        index.to_csv(temporary, index=False)
    return index


def _run_jobs(jobs: list[tuple]):
    """Yield (number, row of the index) of each job, in any order.

    When a worker dies, the jobs that were begun are done one at a time, so that another death tells whose fault it is;
    then the rest goes on together.
    """
    missing = {job[0]: job for job in jobs}
    backend, _ = get_active_backend()
    order = "generator_unordered" if backend.supports_return_generator else "list"  # Ray's gives a list
    while missing:
        try:
            parallel = joblib.Parallel(batch_size=1, return_as=order)
            for number, row in parallel(joblib.delayed(_extract)(*job) for job in list(missing.values())):
                del missing[number]
                yield number, row
        except list_deaths():
            for number in list(missing)[:2 * joblib.effective_n_jobs()]:
                yield _extract_apart(missing.pop(number))


def _extract_apart(job: tuple) -> tuple[int, dict]:
    """Do a job while no other is done: when the process dies, it is this clip's fault."""
    try:
        return joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(_extract)(*job)])[0]
    except BrokenExecutor:
        number, _, _, row, _, _, facts, _ = job
        return number, _describe(row, facts, "its decoder crashed, hung or ran out of memory")


def _extract(number: int, source: Path, target: Path, row: dict, write, settings: dict, facts: dict,
             caller: int | None) -> tuple[int, dict]:
    facts, reason, before = dict(facts), row["reason"], _stamp(source)
    try:
        with _guarded(caller) as live:
            facts["content"] = _hash(source)
            if not reason:
                video = probe(source)
                facts |= {"frames": video.frames, "fps": round(video.fps, 3), "duration": round(video.duration, 3),
                          "width": video.width, "height": video.height, "synthetic": video.synthetic}
                recipe = json.dumps({**settings, "content": facts["content"]})
                facts |= write(source, target, video.frames, recipe, settings, live)
    except UnreadableVideo as error:
        reason = str(error)
    except MemoryError:
        reason = "decoding it takes too much memory"
    if before != _stamp(source):
        reason = "changed while it was read; run again"
        target.unlink(missing_ok=True)
    return number, _describe(row, facts, reason)


def _describe(row: dict, facts: dict, reason: str) -> dict:
    told = {name: value for name, value in row.items() if name not in ("reason", "note")}
    return {**told, **facts, "reason": reason, "note": row["note"]}


def _stamp(source: Path) -> tuple[int, ...]:
    """What tells that a file was changed."""
    try:
        told = source.stat()
        return told.st_size, told.st_mtime_ns, told.st_ino
    except OSError:
        return ()


def _hash(source: Path) -> str:
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError:
        raise UnreadableVideo("no permission to read the file") from None
    except OSError as error:
        raise UnreadableVideo(f"cannot be read: {(error.strerror or str(error)).lower()}") from None


@contextmanager
def _guarded(caller: int | None):
    """Bound the memory of a process of our own, and end it when it shows no life for `HANG`; gives what shows life.

    Nothing is done in the process that called itself, and to workers of somebody's cluster (None).
    """
    if caller in (None, os.getpid()):
        yield lambda: None
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    with open(os.devnull, "w") as nowhere:
        last = -HANG

        def live():  # a thread below Python, which FFmpeg cannot hold up; a new one takes longer than some frames
            nonlocal last
            now = time.monotonic()
            if now - last > HANG / 30:
                faulthandler.dump_traceback_later(HANG, exit=True, file=nowhere)
                last = now

        try:
            live()
            yield live
        finally:
            faulthandler.cancel_dump_traceback_later()
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _write_samples(source: Path, target: Path, frames: int, recipe: str, settings: dict, live) -> dict:
    indices = sample_indices(frames, length=settings["length"], stride=settings["stride"])
    if _recipe(target) != recipe:
        arrays = {str(size): taken for size, taken in read_frames(source, indices, settings["sizes"]).items()}
        # As np.savez_compressed, at a third of its time, hardly larger.
        with atomic_write(target) as temporary, zipfile.ZipFile(
                temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in {"recipe": np.array(recipe), **arrays}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    return {}


def _write_archive(source: Path, target: Path, frames: int, recipe: str, settings: dict, live) -> dict:
    if frames < SHORTEST:
        raise UnreadableVideo(f"too short: {frames} frames, at least {SHORTEST} are needed")
    if _archive_recipe(target) != recipe:
        with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            number = 0
            for number, frame in enumerate(stream_frames(source, settings["height"]), start=1):
                live()
                picture = simplejpeg.encode_jpeg(frame, settings["quality"], colorsubsampling="420")
                archive.writestr(zipfile.ZipInfo(PICTURE.format(number)), picture)
            archive.writestr(zipfile.ZipInfo(COUNT), str(number))
            archive.comment = recipe.encode()
    return {"length": len(ClipArchive(target))}


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
