"""The misclassified test clips: a table of them, and a page that shows each beside a clip of the predicted class."""

from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from health_actions.learning.scores import list_mix_ups
from health_actions.paths import write_text

TEMPLATES = Path(__file__).parents[1] / "templates"
ERROR_COLUMNS = ["clip", "actual", "predicted", "probability", "probability_actual", "other_hand", "recording", "scene",
           "fold", "like", "like_scene", "like_probability"]


def is_other_hand(actual: str, predicted: str) -> bool:
    """Whether two classes are the same step of the left and the right hand."""
    steps = {name.removesuffix("_left").removesuffix("_right") for name in (actual, predicted)}
    return actual != predicted and len(steps) == 1


def list_errors(predictions: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """The misclassified clips, most confident errors first, each with a clip `like` of the predicted class.

    That is the most confident correctly classified clip of the same scene; without one, of another scene; without one,
    any clip of the class, if possible of the same scene.

    Args:
        predictions: table of `predict_folds`.
        clips: all clips of the split, one row each, with clip, class, recording and scene.

    Returns:
        number (from 1) and `ERROR_COLUMNS`: probability is that of the predicted class; like is empty where the class
        has no clip, like_probability is nan where that clip is not correctly classified.
    """
    table = predictions.rename(columns={"class": "actual"})
    table["probability"] = [row[row["predicted"]] for row in table.to_dict("records")]
    table["probability_actual"] = [row[row["actual"]] for row in table.to_dict("records")]
    is_right = table["actual"] == table["predicted"]
    errors = table[~is_right].merge(clips[["clip", "recording", "scene"]], on="clip")
    errors["other_hand"] = list(map(is_other_hand, errors["actual"], errors["predicted"]))
    pool = clips[["clip", "class", "scene"]].set_axis(["like", "predicted", "like_scene"], axis=1)
    certainty = dict(zip(table["clip"][is_right], table["probability"][is_right], strict=True))
    pool["like_probability"] = pool["like"].map(certainty).astype(float)
    pairs = errors.merge(pool, on="predicted", how="left").fillna({"like": "", "like_scene": ""})
    pairs = pairs.assign(correct=pairs["like_probability"].notna(), near=pairs["scene"] == pairs["like_scene"])
    pairs = pairs.sort_values(["probability", "clip", "correct", "near", "like_probability", "like"],
                              ascending=[False, True, False, False, False, True])
    first = pairs.drop_duplicates(["clip", "fold"]).reset_index(drop=True)
    return first[ERROR_COLUMNS].rename_axis("number").reset_index().assign(number=first.index + 1)


def summarise_errors(errors: pd.DataFrame, predictions: pd.DataFrame, clips: pd.DataFrame, classes: list[str]) -> str:
    """What the errors of `list_errors` have in common, in a few sentences."""
    if errors.empty:
        return f"None of {len(predictions)} test clips is misclassified."
    tested = clips[clips["clip"].isin(predictions["clip"])]["recording"].value_counts()
    by_recording = errors["recording"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    probabilities = predictions.set_index("clip").loc[errors["clip"], classes]
    ranks = (probabilities.to_numpy() > errors[["probability_actual"]].to_numpy()).sum(axis=1)
    count, worst = len(errors), by_recording.index[0]
    return (f"{count} of {len(predictions)} test clips ({count / len(predictions):.1%}) are misclassified. Predicted "
            f"as the same step of the other hand: {errors['other_hand'].sum()} of these {count}. The true class was "
            f"the model's second choice: {(ranks == 1).sum()} of {count}. The errors are in {len(by_recording)} of "
            f"{len(tested)} recordings, most of them in {worst}: {by_recording[worst]} of its {tested[worst]} clips.")


def compare_mix_ups(confusions: pd.DataFrame, published: list[list[int]] | None) -> pd.DataFrame:
    """Which class was predicted as which: actual, predicted, published and reproduced (clips); see `count_confusions`.

    Args:
        confusions: of this study.
        published: the paper's counts in the same order; None leaves the column empty.
    """
    theirs = confusions * 0 if published is None else pd.DataFrame(published, confusions.index, confusions.columns)
    both = pd.concat({name: list_mix_ups(counts).set_index(["actual", "predicted"])["clips"]
                      for name, counts in (("published", theirs), ("reproduced", confusions))}, axis=1)
    both = both.fillna(0).astype(int).reset_index().sort_values(
        ["published", "reproduced"], ascending=False, kind="stable", ignore_index=True)
    return both if published is not None else both.assign(published=pd.NA)


def name_picture(number: int, clip: str) -> str:
    """The file name of an error's picture."""
    return f"{number:02d}_{clip.replace('/', '_')}.jpg"


def describe_error(error) -> dict[str, str]:
    """Titles for the rows of an error's picture, see `show_error`; error: a row of `list_errors`, with share, area."""
    like = f"{error.like} ({error.like_scene}): {error.predicted}, " if error.like else f"no clip of {error.predicted}"
    if error.like:
        like += "not correctly classified" if np.isnan(error.like_probability) else (
            f"correctly classified ({error.like_probability:.2f})")
    return {"clip": f"{error.clip} ({error.scene}): {error.actual} ({error.probability_actual:.2f}), predicted as "
                    f"{error.predicted} ({error.probability:.2f})",
            "saliency": f"saliency of {error.predicted}: the outlined moving region, {error.area:.0%} of the area, has "
                        f"{error.share:.0%} of it", "like": like}


def write_page(path: Path, errors: pd.DataFrame, predictions: pd.DataFrame, classes: list[str], *, architecture: str,
               summary: str, pictures: int, synthetic: int) -> None:
    """Write the page of the errors (of `list_errors`), grouped by actual class; pictures are in `errors/` beside it.

    Args:
        pictures: so many errors have a picture and are shown: the first.
        synthetic: number of synthetic test clips.
    """
    probabilities = predictions.set_index("clip")[classes]
    shown = [{**row, "picture": name_picture(row["number"], row["clip"]),
              "bars": probabilities.loc[row["clip"]].items()} for row in errors.head(pictures).to_dict("records")]
    groups = {name: [error for error in shown if error["actual"] == name] for name in classes}
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    write_text(path, page.get_template("errors.html.j2").render(
        groups=[group for group in groups.items() if group[1]], count=len(errors), shown=len(shown), summary=summary,
        architecture=architecture, synthetic=synthetic, tested=len(predictions)) + "\n")
