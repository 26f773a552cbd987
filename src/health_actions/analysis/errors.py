"""The misclassified test clips, each beside a clip of the predicted class."""

import pandas as pd

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
    rows = predictions.to_dict("records")
    table = predictions[["clip", "fold", "predicted"]].assign(  # without the classes: one may be called scene or like
        actual=predictions["class"], probability=[row[row["predicted"]] for row in rows],
        probability_actual=[row[row["class"]] for row in rows])
    is_right = table["actual"] == table["predicted"]
    errors = table[~is_right].merge(clips[["clip", "recording", "scene"]], on="clip", validate="many_to_one")
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
