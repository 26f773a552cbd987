"""The answers of the page, as HTML: the actions done and missing in a wash, and the events in a patient's video."""

import base64
import collections
import functools
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import jinja2
import numpy as np
import simplejpeg

from app.charts import plot_timeline, write_time
from app.uploads import MAX_FILES, Upload
from health_actions.analysis.recognition import NONE, UNSEEN, Answer, LandmarkRecogniser
from health_actions.analysis.timeline import build_timeline, find_events
from health_actions.data.video import TooLong, UnreadableVideo
from health_actions.figures.pictures import draw_landmarks

PACKAGE = Path(__file__).parent
ROWS = 100  # at most, in a table of events
STRIP = 8  # frames at most, of a clip
MOMENTS = 3  # at most, that are shown of a patient's video
STEADY = 3  # consecutive windows that an action of a long wash needs; fewer may be chance
STEP = 10  # windows after which the page shows its progress, and the work ends if nobody waits for it any more
SAYS = {NONE: "It is not like the training clips of any action.", UNSEEN["hands"]: "No hand is seen in it.",
        UNSEEN["pose"]: "Nobody is seen in it."}

Progress = Callable  # takes the share that is done, and desc=...: as Gradio's


@functools.cache
def read_template():
    """The macros of the answers' template."""
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(PACKAGE / "templates"), autoescape=True, trim_blocks=True,
                               lstrip_blocks=True)
    pages.filters["clock"] = write_time
    pages.globals["says"] = SAYS
    return pages.get_template("app.html.j2").module


def check_wash(recogniser: LandmarkRecogniser, paths: list[str] | None, progress: Progress) -> Iterator[str]:
    """The answer to a wash: grows with each file, and ends with the actions that are done and missing.

    Args:
        recogniser: of study A.
        paths: the files that were uploaded.
        progress: called for each file.
    """
    template, results, seconds = read_template(), [], collections.Counter()
    if not paths or len(paths) > MAX_FILES:
        yield str(template.notice(f"{len(paths)} files are too many: the limit is {MAX_FILES}." if paths
                                  else "Choose a video first."))
        return
    for number, path in enumerate(paths):
        upload = Upload(Path(path))
        progress(number / len(paths), desc=upload.name)
        try:
            for result in name_actions(recogniser, upload):
                yield str(template.wash([*results, result]))
        except UnreadableVideo as error:
            result = {"file": upload.name, "error": str(error)}
            yield str(template.wash([*results, result]))
        results.append(result)
        seconds.update(result.get("seen", {}))
    pictures = {name: embed("jpeg", file.read_bytes()) for name in recogniser.classes
                if (file := PACKAGE / "pictures" / f"{name}.jpg").is_file()}
    yield str(template.wash(results)) + str(template.summary(recogniser.classes, seconds, pictures))


def name_actions(recogniser: LandmarkRecogniser, upload: Upload) -> Iterator[dict]:
    """The result of one clip or one long video of a wash, for the template; `seen` has the seconds of its actions.

    Yields:
        The result; for a long video, before that, its progress.
    """
    try:
        answer = recogniser.recognise(upload)
    except TooLong:
        rows = []
        for answer in recogniser.watch(upload):
            rows.append(answer._replace(frames=None, features=None, found=None))  # they would fill the memory
            if len(rows) % STEP == 0:
                yield {"file": upload.name, "watched": answer.end, "length": upload.seconds}
        yield {"file": upload.name, **describe_time(rows, recogniser.classes, least=STEADY)}
        return
    seen = {answer.action: answer.end - answer.start} if answer.action in recogniser.classes else {}
    numbers = np.unique(np.linspace(0, len(answer.frames) - 1, STRIP).round().astype(int))
    yield {"file": upload.name, "seen": seen, "action": answer.action, "probability": answer.probabilities.max(),
           "strip": draw_frames(answer, numbers, 160), "count": len(numbers)}


def watch_patient(recogniser: LandmarkRecogniser, alerts: list[str], path: str | None,
                  progress: Progress) -> Iterator[str]:
    """The answer to a patient's video: alerts as soon as they come, then timeline, events and skeletons.

    Args:
        recogniser: of study B.
        alerts: actions that must not be missed.
        path: the file that was uploaded.
        progress: called for each window.
    """
    template, rows, alarms, surest = read_template(), [], {}, None
    if not path:
        yield str(template.notice("Choose a video first."))
        return
    upload = Upload(Path(path))
    try:
        for answer in recogniser.watch(upload):
            progress(answer.end / max(answer.end, upload.seconds), desc=upload.name)
            rows.append(answer._replace(frames=None, features=None, found=None))
            if answer.action in alerts:
                note_alarm(alarms, answer)
            if answer.action in recogniser.classes and (
                    surest is None or answer.probabilities.max() > surest.probabilities.max()):
                surest = answer
            if len(rows) % STEP == 0:
                yield str(template.watching(upload.name, alarms, answer.end, upload.seconds))
    except UnreadableVideo as error:
        yield str(template.refused(upload.name, str(error)))
        return
    best = [time["best"] for time in itertools.chain(*alarms.values()) if time["best"]] or [surest] * bool(surest)
    moments = [draw_moment(answer) for answer in sorted(best, key=lambda answer: answer.start)]
    yield str(template.monitor(upload.name, alarms, alerts, describe_time(rows, recogniser.classes, alerts), moments))


def note_alarm(alarms: dict[str, list[dict]], answer: Answer) -> None:
    """Add an alert to `alarms` (by action); overlapping windows of the same action become one, `best` is the surest.

    Of all alerts, only the `MOMENTS` surest keep their `best`: all frames would fill the memory.
    """
    times, confidence = alarms.setdefault(answer.action, []), float(answer.probabilities.max())
    if not times or answer.start > times[-1]["end"]:
        times.append({"start": answer.start, "confidence": 0.0})
    times[-1]["end"] = answer.end
    if confidence > times[-1]["confidence"]:
        times[-1] |= {"confidence": confidence, "best": answer}
    for time in sorted(itertools.chain(*alarms.values()), key=lambda time: time["confidence"])[:-MOMENTS]:
        time["best"] = None


def describe_time(rows: list[Answer], classes: list[str], alerts: list[str] = (), least: int = 1) -> dict:
    """Timeline and events of `least` windows or more, for the template; `seen` has the seconds of each action.

    Of the events, the longest in order of time, and the number of others. `says`: what holds for all of it.
    """
    timeline = build_timeline(rows, classes)
    events = find_events(timeline, classes).query("windows >= @least")
    lengths = events["end"] - events["start"]
    longest = events.loc[lengths.nlargest(ROWS).index].sort_values("start")
    chart, file = plot_timeline(timeline, events, classes, alerts), io.BytesIO()
    chart.savefig(file, format="svg")
    return {"events": longest.to_dict("records"), "more": len(events) - len(longest),
            "seen": lengths.groupby(events["action"]).sum().to_dict(), "chart": embed("svg+xml", file.getvalue()),
            "says": SAYS.get(rows[0].action) if timeline["action"].nunique() == 1 else None}


def draw_moment(answer: Answer) -> dict:
    """A frame in the middle of those of a window in which somebody is seen, for the template."""
    seen = [number for number, found in enumerate(answer.found) if np.isfinite(found["presence"]).any()]
    number = seen[len(seen) // 2]
    return {"picture": draw_frames(answer, [number], 480), "action": answer.action,
            "time": answer.start + (answer.end - answer.start) * number / len(answer.frames)}


def draw_frames(answer: Answer, numbers: list[int], height: int) -> str:
    """Frames of an answer side by side, at a height, with what was found in them; a data URL."""
    size = round(height * answer.frames.shape[2] / answer.frames.shape[1]), height
    drawn = [draw_landmarks(cv2.resize(answer.frames[number], size), answer.found[number]) for number in numbers]
    return embed("jpeg", simplejpeg.encode_jpeg(np.concatenate(drawn, axis=1), 85))


def embed(kind: str, content: bytes) -> str:
    """A picture as a data URL: no file, no request."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
