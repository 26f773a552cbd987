"""From videos to the store of frames: each clip is decoded once, at 30 frames a second; study A keeps some of them."""

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from health_actions.data.clips import NoClips
from health_actions.data.frames import COUNT, PICTURE, Clip
from health_actions.data.sandbox import Sandbox
from health_actions.data.video import RATE, UnreadableVideo
from health_actions.paths import atomic_write
from health_actions.progress import track

LOCAL = threading.local()  # the sandbox of each thread that decodes


def sample_indices(frames: int, *, length: int, stride: int) -> np.ndarray:
    """Numbers of the `length` frames to take of a clip, `stride` or fewer apart; UnreadableVideo when it is shorter."""
    if frames < length:
        raise UnreadableVideo(f"too short: {frames} frames at {RATE} per second, at least {length} are needed")
    if length > 1:
        stride = min(stride, (frames - 1) // (length - 1))
    return np.arange(length) * stride


def extract_frames(folder: Path, output: Path, clips: pd.DataFrame, *, height: int, quality: int = 90,
                   length: int | None = None, stride: int = 1, backend: str = "threading", address: str = "",
                   workers: int = -1) -> pd.DataFrame:
    """Decode what `find_clips` found in `folder`; write its frames, `<output>/<clip>.zip`, and `<output>/index.csv`.

    A clip whose archive is there, made from the same bytes with the same settings, is not decoded again; archives of
    clips that are gone are deleted. Clips that cannot be used, or that the `Sandbox` ends, are left out with a reason.

    Args:
        height, quality: of the JPEG pictures: pixels (the width follows), and 1-95.
        length, stride: see `sample_indices`; length None keeps every frame at 30 per second, as study B needs.
        backend: "threading"; "dask", whose workers need this package and the same folders; or another one of joblib.
        address: of a Dask scheduler, "tcp://host:8786", which has its own workers; empty starts a cluster here.
        workers: clips that are decoded at a time; -1 is one for each core.

    Returns the index, a row a file: the columns of `find_clips`; `VideoFacts` and duration; content (SHA-256 of the
    file); length (frames kept), stride (in frames at 30 per second); status ("ok" or "left out") and reason.
    NoClips when no clip can be used; ValueError when there is no such backend, or no Dask scheduler answers.
    """
    folder, output = Path(folder), Path(output)
    settings = {"height": height, "quality": quality, "length": length, "stride": stride}
    unknown = {"frames": 0, "fps": 0.0, "duration": 0.0, "width": 0, "height": 0, "synthetic": False, "content": "",
               "length": 0, "stride": stride}
    jobs = [(folder / row["path"], output / f"{row['clip']}.zip", row | unknown, settings)
            for row in clips.to_dict("records")]
    try:
        with closing(_run_jobs(jobs, backend, address, workers)) as rows:
            index = pd.DataFrame(track(rows, total=len(jobs), title="clips decoded"))
    except BaseException:
        for file in output.rglob(".*.part.zip"):  # of workers that were ended in the middle
            file.unlink(missing_ok=True)
        raise
    index = index.set_index("path", drop=False).loc[clips["path"]].reset_index(drop=True)
    index["status"] = np.where(index["reason"] == "", "ok", "left out")
    usable = index.loc[index["status"] == "ok", "clip"]
    if usable.empty:
        reasons = "\n".join(f"  {row.path}: {row.reason}" for row in index.head(12).itertuples())
        raise NoClips(f"none of the {len(index)} files in {folder.name} can be used:\n{reasons}")
    for file in {*output.rglob("*.zip")} - {output / f"{clip}.zip" for clip in usable}:
        file.unlink()
    for path in sorted(output.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    with atomic_write(output / "index.csv") as temporary:
        index.to_csv(temporary, index=False)
    return index


def _run_jobs(jobs: list[tuple], backend: str, address: str, workers: int) -> Iterator[dict]:
    if backend == "threading":  # not joblib's, which does not wait for its threads after an error
        with ThreadPoolExecutor(joblib.effective_n_jobs(workers)) as pool, ExitStack() as stack:
            futures = [pool.submit(_extract, *job) for job in jobs]
            stack.callback(pool.shutdown, cancel_futures=True)
            yield from (future.result() for future in as_completed(futures))
    elif backend == "dask":
        yield from _run_on_dask(jobs, address, workers)
    else:
        yield from joblib.Parallel(workers, backend=backend)(joblib.delayed(_extract)(*job) for job in jobs)


def _run_on_dask(jobs: list[tuple], address: str, workers: int) -> Iterator[dict]:
    # Dask's own futures, since joblib waits for ever for a worker that died. Dask tries a clip on three others.
    try:
        import distributed
    except ImportError:
        raise ValueError('the backend dask is not installed: pip install "distributed", or set backend to threading '
                         "in params.yaml") from None
    with ExitStack() as stack:
        if not address:
            address = stack.enter_context(distributed.LocalCluster(
                n_workers=joblib.effective_n_jobs(workers), threads_per_worker=1, dashboard_address=None))
        try:
            client = stack.enter_context(distributed.Client(address))
        except (OSError, ValueError) as error:
            raise ValueError(f"no Dask scheduler answers at {address}: {str(error).splitlines()[0]}") from None
        futures = {client.submit(_extract, *job, pure=False): job for job in jobs}
        for future in distributed.as_completed(futures):
            killed = isinstance(future.exception(), distributed.KilledWorker)
            yield futures[future][2] | {"reason": "the processes that decoded it died"} if killed else future.result()


def _extract(source: Path, target: Path, row: dict, settings: dict) -> dict:
    if not hasattr(LOCAL, "sandbox"):
        LOCAL.sandbox = Sandbox()
    row, before = dict(row), _stamp(source)
    if row["reason"]:
        return row
    try:
        with source.open("rb") as file:
            row["content"] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return row | {"reason": f"cannot be read: {(error.strerror or str(error)).lower()}"}
    try:
        video = LOCAL.sandbox.probe(source)
        row |= vars(video) | {"fps": round(video.fps, 3), "duration": round(video.duration, 3)}
        resampled = {"rate": RATE} if video.samples != video.frames else {}  # as no version before this one did it
        row |= _write_clip(source, target, video.samples, settings | {"content": row["content"]} | resampled)
    except UnreadableVideo as error:
        row["reason"] = str(error)
    if before != _stamp(source):
        row["reason"] = "changed while it was read; run again"
    return row


def _write_clip(source: Path, target: Path, frames: int, settings: dict) -> dict:
    length, stride = settings["length"], settings["stride"]
    # A clip of which all frames are kept has 8 or more; models loop what is shorter than their window.
    indices = sample_indices(frames, length=length or 8, stride=stride)
    stride = int(indices[1]) if length and length > 1 else stride
    with suppress(OSError, ValueError):  # no archive, or a damaged one
        clip = Clip(target)
        if clip.settings == settings:
            return {"length": len(clip), "stride": stride}
    with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        number = 0
        pictures = LOCAL.sandbox.encode(source, height=settings["height"], quality=settings["quality"],
                                        indices=indices if length else None)
        for number, picture in enumerate(pictures, start=1):
            archive.writestr(zipfile.ZipInfo(PICTURE.format(number)), picture)
        archive.writestr(zipfile.ZipInfo(COUNT), str(number))
        archive.comment = json.dumps(settings).encode()
    return {"length": number, "stride": stride}


def _stamp(source: Path) -> tuple[int, ...]:
    with suppress(OSError):
        status = source.stat()
        return status.st_size, status.st_mtime_ns, status.st_ino
    return ()
