"""The answers of the page, as HTML: the actions done and missing in a wash, and the events in a patient's video."""

import base64
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from app.charts import build_timeline, find_events, plot_timeline, show_saliency, write_time
from app.uploads import MAX_FILES, Upload
from health_actions.analysis.recognition import NONE, Answer, Recogniser
from health_actions.analysis.saliency import compute_saliency
from health_actions.data.video import TooLong, UnreadableVideo

PACKAGE = Path(__file__).parent
ROWS = 100  # at most, in a table of events
STEADY = 3  # consecutive windows that an action of a long wash needs; fewer may be chance
STEP = 10  # windows after which the page shows its progress, and the work ends if nobody waits for it any more
BATCH = 2  # windows that go through the model together: more take more memory and no less time

Progress = Callable  # takes the share that is done, and desc=...: as Gradio's


@functools.cache
def read_template():
    """The macros of the answers' template."""
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(PACKAGE / "templates"), autoescape=True, trim_blocks=True,
                               lstrip_blocks=True)
    pages.filters["clock"] = write_time
    pages.globals["none_of_these"] = NONE
    return pages.get_template("app.html.j2").module


def check_wash(recogniser: Recogniser, paths: list[str] | None, progress: Progress) -> Iterator[str]:
    """The answer to a wash: grows with each file, and ends with the actions that are done and missing.

    Args:
        recogniser: of study A.
        paths: the files that were uploaded.
        progress: called for each file.
    """
    template, results, done = read_template(), [], set()
    if not paths:
        yield ""
        return
    if len(paths) > MAX_FILES:
        yield str(template.notice(f"{len(paths)} files are too many: the limit is {MAX_FILES}."))
        return
    for number, path in enumerate(paths):
        upload = Upload(Path(path))
        progress(number / len(paths), desc=upload.name)
        try:
            for result in name_actions(recogniser, upload):
                yield str(template.wash([*results, result]))
        except UnreadableVideo as error:
            result = {"file": upload.name, "error": str(error)}
        results.append(result)
        done |= result.get("seen", set())
        yield str(template.wash(results))
    pictures = {name: embed("jpeg", file.read_bytes()) for name in recogniser.classes
                if (file := PACKAGE / "pictures" / f"{name}.jpg").is_file()}
    yield str(template.wash(results)) + str(template.summary(recogniser.classes, done, pictures))


def name_actions(recogniser: Recogniser, upload: Upload) -> Iterator[dict]:
    """The result of one clip or one long video of a wash, for the template; `seen` has its actions.

    Yields:
        The result; for a long video, before that, its progress.
    """
    try:
        answer = recogniser.recognise(upload)
    except TooLong:
        rows = []
        for answer in recogniser.watch(upload, batch=BATCH):
            rows.append(answer._replace(frames=None, features=None))  # all of them would fill the memory
            if len(rows) % STEP == 0:
                yield {"file": upload.name, "watched": answer.end}
        timeline = build_timeline(rows, recogniser.classes)
        events = find_events(timeline, recogniser.classes).query("windows >= @STEADY")
        yield {"file": upload.name, "seen": set(events["action"]), **list_rows(events),
               "chart": embed_figure(plot_timeline(timeline, events, recogniser.classes))}
        return
    yield {"file": upload.name, "seen": {answer.action} - {NONE}, "action": answer.action,
           "probability": answer.probabilities.max(), "strip": embed_frames(answer.frames), "count": len(answer.frames)}


def watch_patient(recogniser: Recogniser, alerts: list[str], path: str | None, progress: Progress) -> Iterator[str]:
    """The answer to a patient's video: alerts as soon as they come, then timeline, events and saliency.

    Args:
        recogniser: of study B.
        alerts: actions that must not be missed.
        path: the file that was uploaded.
        progress: called for each window.
    """
    template, rows, alarms, best, surest = read_template(), [], {}, None, -1.0
    if not path:
        yield ""
        return
    upload = Upload(Path(path))
    try:
        for answer in recogniser.watch(upload, batch=BATCH):
            progress(answer.end / max(answer.end, upload.seconds), desc=upload.name)
            rows.append(answer._replace(frames=None, features=None))
            if answer.action in alerts:
                note_alarm(alarms, answer)
            rank = answer.probabilities.max() if answer.action in alerts else 0.0
            if answer.action != NONE and rank > surest:  # the most confident alert, or else the first action
                best, surest = answer, rank
            if len(rows) % STEP == 0:
                yield str(template.watching(upload.name, alarms, answer.end, upload.seconds))
    except UnreadableVideo as error:
        yield str(template.refused(upload.name, str(error)))
        return
    timeline = build_timeline(rows, recogniser.classes)
    events = find_events(timeline, recogniser.classes)
    chart = embed_figure(plot_timeline(timeline, events, recogniser.classes, alerts))
    yield str(template.monitor(upload.name, alarms, alerts, {**list_rows(events), "chart": chart},
                               explain(recogniser, best) if best else None))


def note_alarm(alarms: dict[str, list[dict]], answer: Answer) -> None:
    """Add an alert to `alarms` (by action); overlapping windows of the same action become one."""
    times, confidence = alarms.setdefault(answer.action, []), float(answer.probabilities.max())
    if times and answer.start <= times[-1]["end"]:
        times[-1] |= {"end": answer.end, "confidence": max(confidence, times[-1]["confidence"])}
    else:
        times.append({"start": answer.start, "end": answer.end, "confidence": confidence})


def list_rows(events: pd.DataFrame) -> dict:
    """The longest events in order of time, and the number of others."""
    longest = events.assign(length=events["end"] - events["start"]).nlargest(ROWS, "length").sort_values("start")
    return {"events": longest.to_dict("records"), "more": len(events) - len(longest)}


def explain(recogniser: Recogniser, answer: Answer) -> dict:
    """Saliency in the middle frame of a window, for the template."""
    frames = torch.from_numpy(answer.frames).permute(0, 3, 1, 2)
    clip = recogniser.transform(recogniser.spatial(frames)).transpose(0, 1)
    saliency = compute_saliency(recogniser.model, clip, recogniser.classes.index(answer.action))
    middle = len(frames) // 2
    return {"picture": embed_figure(show_saliency(answer.frames[middle], saliency[middle].numpy()), "png"),
            "time": (answer.start + answer.end) / 2, "action": answer.action}


def embed(kind: str, content: bytes) -> str:
    """A picture as a data URL: no file, no request."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed_figure(figure: Figure, form: str = "svg") -> str:
    """A figure as a data URL."""
    file = io.BytesIO()
    figure.savefig(file, format=form)
    return embed({"svg": "svg+xml"}.get(form, form), file.getvalue())


def embed_frames(frames: np.ndarray, columns: int = 8) -> str:
    """Frames uint8 (count, height, width, 3) in rows, as a data URL."""
    blank = np.full((-len(frames) % columns, *frames.shape[1:]), 255, np.uint8)
    rows = np.concatenate([frames, blank]).reshape(-1, columns, *frames.shape[1:])
    picture, file = Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])), io.BytesIO()
    picture.thumbnail((1280, 1280))
    picture.save(file, "JPEG", quality=80)
    return embed("jpeg", file.getvalue())
