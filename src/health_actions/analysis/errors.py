"""The misclassified test clips: a table of them, what they are shown beside, and a page to browse them."""

from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from health_actions.learning.evaluation import list_mix_ups
from health_actions.paths import write_text

TEMPLATES = Path(__file__).parents[1] / "templates"


def is_other_hand(actual: str, predicted: str) -> bool:
    """Whether two classes are the same step of the left and the right hand."""
    steps = {name.removesuffix("_left").removesuffix("_right") for name in (actual, predicted)}
    return actual != predicted and len(steps) == 1


def list_errors(predictions: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """The misclassified clips, the most certain of its wrong answer first, each with a clip of the class predicted.

    That clip is rightly classified (a test clip therefore), of the same scene and with the highest probability, as far
    as there is one; else it is any clip of the class, then of any subset.

    Args:
        predictions: table of `predict_folds`.
        clips: all clips of the split, one row each, with clip, class, recording and scene.

    Returns:
        number (from 1), clip, actual, predicted, probability (of the predicted class), probability_actual, other_hand,
        recording, scene, fold, like (the clip of the class predicted; empty where there is none), like_scene and
        like_probability (nan where it is not rightly classified itself).
    """
    known = clips.set_index("clip")
    right = predictions[predictions["class"] == predictions["predicted"]]
    certainty = {row["clip"]: row[row["class"]] for row in right.to_dict("records")}
    rows = []
    for row in predictions[predictions["class"] != predictions["predicted"]].to_dict("records"):
        recording, scene = known.loc[row["clip"], ["recording", "scene"]]
        pool = clips[clips["class"] == row["predicted"]]
        pool = pool.assign(probability=pool["clip"].map(certainty).astype(float), same=pool["scene"] == scene)
        pool = pool.assign(right=pool["probability"].notna()).sort_values(
            ["right", "same", "probability", "clip"], ascending=[False, False, False, True])
        like = pool.iloc[0] if len(pool) else {"clip": "", "scene": "", "probability": np.nan}
        rows.append({
            "clip": row["clip"], "actual": row["class"], "predicted": row["predicted"],
            "probability": row[row["predicted"]], "probability_actual": row[row["class"]],
            "other_hand": is_other_hand(row["class"], row["predicted"]), "recording": recording, "scene": scene,
            "fold": row["fold"], "like": like["clip"], "like_scene": like["scene"],
            "like_probability": like["probability"]})
    columns = ["clip", "actual", "predicted", "probability", "probability_actual", "other_hand", "recording", "scene",
               "fold", "like", "like_scene", "like_probability"]
    errors = pd.DataFrame(rows, columns=columns).sort_values(["probability", "clip"], ascending=[False, True])
    errors.insert(0, "number", np.arange(1, len(errors) + 1))
    return errors.reset_index(drop=True)


def summarise_errors(errors: pd.DataFrame, predictions: pd.DataFrame, clips: pd.DataFrame, classes: list[str]) -> str:
    """What the errors have in common, in two or three sentences; see `list_errors`."""
    if errors.empty:
        return f"None of {len(predictions)} test clips is misclassified."
    tested = clips[clips["clip"].isin(predictions["clip"])]["recording"].value_counts()
    by_recording = errors["recording"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    probabilities = predictions.set_index("clip").loc[errors["clip"], classes]
    ranks = (probabilities.to_numpy() > errors[["probability_actual"]].to_numpy()).sum(axis=1)
    worst = by_recording.index[0]
    return (f"{len(errors)} of {len(predictions)} test clips ({len(errors) / len(predictions):.1%}) are misclassified. "
            f"Called the same step of the other hand: {errors['other_hand'].sum()} of these {len(errors)}. The true "
            f"class was the model's second choice: {(ranks == 1).sum()} of {len(errors)}. The errors lie in "
            f"{len(by_recording)} of {len(tested)} recordings, most of them in {worst}: {by_recording[worst]} of its "
            f"{tested[worst]} clips.")


def compare_mix_ups(confusions: pd.DataFrame, published: list[list[int]] | None) -> pd.DataFrame:
    """What was called what, in the paper and here: actual, predicted, published and reproduced (numbers of clips).

    Args:
        confusions: of `count_confusions`.
        published: the same of the paper as rows of numbers; None where it is not known (published is then empty).
    """
    keys = ["actual", "predicted"]
    ours = list_mix_ups(confusions).set_index(keys)["clips"].rename("reproduced")
    if published is None:
        return ours.reset_index().assign(published=pd.NA)[[*keys, "published", "reproduced"]]
    theirs = pd.DataFrame(published, index=confusions.index, columns=confusions.columns)
    theirs = list_mix_ups(theirs).set_index(keys)["clips"].rename("published")
    both = pd.concat([theirs, ours], axis=1).fillna(0).astype(int).reset_index()
    return both.sort_values(["published", "reproduced"], ascending=False, kind="stable", ignore_index=True)


def name_picture(number: int, clip: str) -> str:
    """The file name of an error's picture."""
    return f"{number:02d}_{clip.replace('/', '_')}.jpg"


def describe_error(error) -> dict[str, str]:
    """What the rows of an error's picture show, see `figures.show_error`.

    Args:
        error: a row of `list_errors`, with share and area.
    """
    said = f"the model says {error.predicted} ({error.probability:.2f}), not {error.actual}"
    if not error.like:
        like = f"there is no clip of {error.predicted}"
    elif np.isnan(error.like_probability):
        like = f"{error.like} ({error.like_scene}): a clip of {error.predicted}, none is classified rightly"
    else:
        like = f"{error.like} ({error.like_scene}): {error.predicted}, classified so ({error.like_probability:.2f})"
    return {"clip": f"{error.clip} ({error.scene}): {said} ({error.probability_actual:.2f})",
            "saliency": f"what {error.predicted} depends on; the outlined moving region, {error.area:.0%} of the area, "
                        f"holds {error.share:.0%} of it",
            "like": like}


def write_page(path: Path, errors: pd.DataFrame, predictions: pd.DataFrame, classes: list[str], *, architecture: str,
               summary: str, pictures: int, synthetic: int) -> None:
    """Write the page of the errors, grouped by actual class; pictures lie in `errors/` beside it.

    Args:
        errors: of `list_errors`, with share and area.
        predictions: their probabilities.
        summary: the sentence at the top.
        pictures: how many errors have a picture and are shown: the first ones.
        synthetic: how many of the test clips are.
    """
    probabilities = predictions.set_index("clip")[classes]
    shown = [{**row._asdict(), "picture": name_picture(row.number, row.clip), "says": describe_error(row),
              "bars": [(name, float(probabilities.at[row.clip, name])) for name in classes]}
             for row in errors.head(pictures).itertuples(index=False)]
    groups = [(name, [error for error in shown if error["actual"] == name]) for name in classes]
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    text = page.get_template("errors.html.j2").render(
        groups=[group for group in groups if group[1]], count=len(errors), shown=len(shown), summary=summary,
        architecture=architecture, synthetic=synthetic, tested=len(predictions))
    write_text(path, text + "\n")
