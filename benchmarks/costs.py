"""Minutes that the training of each network in build/ took, as .resume/ keeps them: `python -m benchmarks.costs`.

By the clock: in a first run both studies share the cores, so a training may take twice its core-minutes. Trainings
of Tables 2 to 4 and of notebooks 9 and 10 keep no weights and are not among them.
"""

import json
from pathlib import Path

import pandas as pd

from health_actions.learning.features import hash_files
from health_actions.paths import find_root


def sum_minutes(root: Path) -> pd.Series:
    """(study, network) -> minutes of all its folds, where the weights at hand are those of a training that is kept."""
    rows, seconds = [], {}
    for file in root.glob(".resume/*/*/fold_*/finished.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        seconds[record.get("model")] = sum(row["seconds"] for row in record["chosen"])
    for card in sorted(root.glob("build/*/*/**/fold_*/card.json")):
        study, *parts = card.parent.relative_to(root / "build").parts[:-1]
        rows.append((study, "/".join(parts), seconds.get(hash_files(card.parent), float("nan")) / 60))
    table = pd.DataFrame(rows, columns=["study", "network", "minutes"])
    return table.groupby(["study", "network"])["minutes"].sum(min_count=1).dropna()


if __name__ == "__main__":
    minutes = sum_minutes(find_root())
    print(minutes.round(1).to_string() if len(minutes) else "no minutes of trainings: dvc's cache had the networks")
    print(f"together: {minutes.sum():.0f} minutes")
