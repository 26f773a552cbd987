"""What a video shows over time: the windows of a recogniser, and stretches of one action."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from health_actions.analysis.recognition import Answer, LandmarkRecogniser, Recogniser
from health_actions.data.video import TooLong, UnreadableVideo


def build_timeline(answers: Iterable[Answer], classes: list[str]) -> pd.DataFrame:
    """One row a window: start, end (seconds), action, and the probability of each class.

    Windows overlap, rows do not: each begins and ends halfway between the middles of its window and the next.
    """
    rows = [(answer.start, answer.end, answer.action, *answer.probabilities) for answer in answers]
    timeline = pd.DataFrame(rows, columns=["start", "end", "action", *classes])
    if len(timeline):
        middles = timeline[["start", "end"]].mean(axis=1).to_numpy()
        between = (middles[1:] + middles[:-1]) / 2
        timeline["start"] = [timeline["start"].iloc[0], *between]
        timeline["end"] = [*between, timeline["end"].iloc[-1]]
    return timeline


def find_events(timeline: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Stretches of a timeline with one action, other than `NONE` and `UNSEEN`: action, start, end (seconds), confidence
    (mean of the largest probabilities), windows (n)."""
    changes = timeline["action"] != timeline["action"].shift()
    rows = timeline.assign(confidence=timeline[classes].max(axis=1), stretch=changes.cumsum())
    events = rows.groupby("stretch").agg(action=("action", "first"), start=("start", "first"), end=("end", "last"),
                                         confidence=("confidence", "mean"), windows=("action", "size"))
    return events[events["action"].isin(classes)].reset_index(drop=True)


def answer_video(recogniser: Recogniser | LandmarkRecogniser, path: Path, timeline: bool = False) -> dict:
    """The answer to a video of any length: file, action, probability, error, probabilities (by class), events.

    A video that is too long for one answer has the action of most of its time, and the mean probabilities. It has the
    events of `find_events`, as a shorter one has with `timeline`. Where the video cannot be used, error says why.
    """
    row = {"file": str(path), "action": None, "probability": None, "error": None, "probabilities": {}, "events": None}
    try:
        try:
            answer = recogniser.recognise(path)
        except TooLong:
            answer = None
        if answer is None or timeline:
            watched = build_timeline(recogniser.watch(path), recogniser.classes)
            events = find_events(watched, recogniser.classes).rename(columns={"confidence": "probability"}).round(3)
            row["events"] = events.drop(columns="windows").to_dict("records")
        if answer is None:
            seconds = watched["end"] - watched["start"]
            action = seconds.groupby(watched["action"]).sum().idxmax()
            probabilities = watched[recogniser.classes].mul(seconds, axis=0).sum() / seconds.sum()
        else:
            action, probabilities = answer.action, pd.Series(answer.probabilities, recogniser.classes)
    except UnreadableVideo as error:
        return row | {"error": str(error)}
    shares = probabilities.round(4)
    return row | {"action": action, "probability": float(shares.get(action, shares.max())),
                  "probabilities": shares.to_dict()}
