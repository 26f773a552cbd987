"""Intervals and tests, computed a second time from the tables of predictions, with loops and without the project."""

import csv
import itertools
import math
import random
import statistics
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, ROOT
from scipy.stats import t as student

from health_actions.learning.comparison import add_difference, compare_pairs
from health_actions.learning.scores import bootstrap_interval, score, score_classes, wilson_interval

REPORTS = ROOT / "reports"


def read_rows(file) -> list[dict]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def group_right(rows) -> dict[str, list[bool]]:
    """Performer -> of each clip, whether it is right."""
    right = defaultdict(list)
    for row in rows:
        right[row["recording"]].append(row["class"] == row["predicted"])
    return right


def solve_wilson(share: float, count: int) -> list[float]:
    """The two shares that lie 1.96 of their own standard errors away, by bisection."""
    ends = []
    for outer in (0.0, 1.0):
        inner = share
        for _ in range(60):
            middle = (outer + inner) / 2
            far = abs(middle - share) > 1.959963985 * math.sqrt(middle * (1 - middle) / count)
            outer, inner = (middle, inner) if far else (outer, middle)
        ends.append((outer + inner) / 2)
    return ends


def draw_interval(rows) -> list[float]:
    """The interval over performers, from draws of its own."""
    right = group_right(rows)
    clips = [each for answers in right.values() for each in answers]
    if len(right) in (1, len(clips)) or len(set(clips)) == 1:  # nothing tells how alike a performer's clips are
        return solve_wilson(sum(clips) / len(clips), len(right))
    generator, shares = random.Random(1), []
    for _ in range(4000):
        drawn = generator.choices([*right.values()], k=len(right))
        shares.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    shares.sort()
    count = len(right)  # few performers: farther out, by Student's t and the variance's count - 1
    outside = statistics.NormalDist().cdf(-math.sqrt(count / (count - 1)) * student.ppf(0.975, count - 1))
    least = solve_wilson(sum(clips) / len(clips), len(clips))  # of as many independent clips
    return [min(shares[round(3999 * outside)], least[0]), max(shares[round(3999 * (1 - outside))], least[1])]


def count_patterns(first, second) -> tuple[float, float]:
    """Mean difference over performers, and the share of all patterns of signs that are as far from 0."""
    answers = {row["clip"]: row["predicted"] for row in second}
    differences = defaultdict(list)
    for row in first:
        if row["clip"] in answers:
            own, other = row["predicted"] == row["class"], answers[row["clip"]] == row["class"]
            differences[row["recording"]].append(own - other)
    means = [sum(each) / len(each) for each in differences.values()]
    moved = [mean for mean in means if mean]
    sums = [abs(sum(sign * mean for sign, mean in zip(signs, moved, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(moved))]
    return sum(means) / len(means), sum(each >= abs(sum(moved)) - 1e-9 for each in sums) / len(sums)


def step_down(p_values: list[float]) -> list[float]:
    """Holm's corrected p of each: the largest of the smaller ones times the number of those not yet passed."""
    ranked = sorted(p_values)
    return [max(min(1, smaller * (len(ranked) - rank)) for rank, smaller in enumerate(ranked) if smaller <= p)
            for p in p_values]


def make_tables(performers: int, seed: int) -> dict[str, pd.DataFrame]:
    """Three models on 24 clips of each performer, of whom some are easy."""
    generator = np.random.default_rng(seed)
    clips = pd.DataFrame({"clip": range(24 * performers), "recording": np.repeat(range(performers), 24),
                          "class": CLASSES * 8 * performers})
    easy, tables = np.repeat(generator.normal(0, 0.2, performers), 24), {}
    for name, skill in (("good", 0.8), ("fair", 0.6), ("poor", 0.3)):
        right = generator.random(len(clips)) < skill + easy
        tables[name] = clips.assign(predicted=clips["class"].where(right, CLASSES[0]),
                                    **{each: generator.random(len(clips)) for each in CLASSES})
    return tables


@pytest.mark.parametrize("performers", [2, 8, 12, 16])
def test_intervals_and_tests_are_those_of_a_second_computation(performers, tmp_path):
    tables = make_tables(performers, seed=performers)
    rows = {}
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        rows[name] = read_rows(tmp_path / f"{name}.csv")
        found = score(pd.read_csv(tmp_path / f"{name}.csv"), CLASSES)
        assert [found["clip_top1_low"], found["clip_top1_high"]] == pytest.approx(draw_interval(rows[name]), abs=0.04)
        for own in score_classes(table, CLASSES).to_dict("records"):
            shown = [row for row in rows[name] if row["class"] == own["class"]]
            assert [own["recall_low"], own["recall_high"]] == pytest.approx(draw_interval(shown), abs=0.06)
            called = [row for row in rows[name] if row["predicted"] == own["class"]]
            if called:
                assert [own["precision_low"], own["precision_high"]] == pytest.approx(draw_interval(called), abs=0.06)
    pairs = list(itertools.combinations(tables, 2))
    check_pairs(compare_pairs(tables, pairs), [count_patterns(rows[one], rows[other]) for one, other in pairs])


def check_pairs(found: pd.DataFrame, expected: list[tuple[float, float]]) -> None:
    """Exact for up to 12 performers; of more, the project draws 10,000 patterns. Without pairs nothing is compared."""
    if found.empty:
        return
    assert found["difference"].tolist() == pytest.approx([difference for difference, _ in expected], abs=1e-5)
    corrected = step_down([p for _, p in expected])
    tolerance = 1e-5 if (found["performers"] <= 12).all() else 0.02 * len(expected)
    assert found["p"].tolist() == pytest.approx(corrected, abs=tolerance)


@pytest.mark.parametrize(("share", "count"), [(0, 4), (0.3, 7), (0.584, 77), (1, 12)])
def test_wilsons_interval_solves_its_equation(share, count):
    assert wilson_interval(share * count, count) == pytest.approx(solve_wilson(share, count), abs=1e-6)


def test_the_interval_over_performers_covers_the_truth_about_as_often_as_it_says():
    """Of 300 experiments with 12 performers of different skill, 95 % should."""
    generator, covered = np.random.default_rng(0), {"performers": 0, "clips": 0}
    for _ in range(300):
        skills = generator.beta(2, 1, 12)  # mean 2/3
        people, right = np.repeat(range(12), 18), generator.random(216) < np.repeat(skills, 18)
        for name, units in (("performers", people), ("clips", range(216))):
            low, high = bootstrap_interval(right, units)
            covered[name] += low <= 2 / 3 <= high
    assert 0.92 < covered["performers"] / 300 < 0.98 and covered["clips"] / 300 < 0.7, "clips are not independent"


@pytest.mark.parametrize(("folder", "table", "published", "column", "clips"), [
    ("handwash/04_handwash_evaluation", "table_1", "published", "reproduced", 77),
    ("ntu/17_ntu_evaluation", "table_3", "published_top1", "clip_top1", math.nan)])
def test_the_committed_tables_are_those_of_a_second_computation(folder, table, published, column, clips):
    folder = REPORTS / folder
    tests = sorted(folder.glob("*_differences.csv"))
    if not tests:
        pytest.skip(f"no committed tables in {folder}")
    for row in read_rows(folder / f"{table}.csv"):
        name = row["architecture"] if "architecture" in row else f"{row['model']}_{row['start']}"
        file = folder / f"predictions_{name}.csv"
        rows = read_rows(file if file.is_file() else folder / f"predictions_{row['model']}.csv")
        low, high = draw_interval(rows)
        assert [float(row["low"]), float(row["high"])] == pytest.approx([low, high], abs=0.03)
        if row[published]:
            theirs, ours = float(row[published]), float(row[column])
            their_low, their_high = (theirs, theirs) if math.isnan(clips) else solve_wilson(theirs, clips)
            down = math.dist((ours, theirs), (float(row["low"]), their_high))
            up = math.dist((ours, theirs), (float(row["high"]), their_low))
            ends = [ours - theirs - down, ours - theirs + up]
            assert [float(row["difference_low"]), float(row["difference_high"])] == pytest.approx(ends, abs=0.002)
            word = "above" if ends[1] < 0 else "below" if ends[0] > 0 else "near"
            assert row["published_is"] == word or min(map(abs, ends)) < 0.002
    for pairs in map(pd.read_csv, tests):
        files = [[folder / f"predictions_{name.replace(' ', '_')}.csv" for name in pair]
                 for pair in zip(pairs["first"], pairs["second"], strict=True)]
        check_pairs(pairs, [count_patterns(*map(read_rows, pair)) for pair in files])


def test_a_difference_has_the_errors_of_both_numbers():
    table = pd.DataFrame({"published": [0.584, 0.3], "reproduced": [0.7, 0.9], "low": [0.5, 0.8], "high": [0.8, 0.95]})
    for row in add_difference(table, 77).itertuples():
        low, high = solve_wilson(row.published, 77)
        ends = (row.difference - math.hypot(row.reproduced - row.low, high - row.published),
                row.difference + math.hypot(row.high - row.reproduced, row.published - low))
        assert (row.difference_low, row.difference_high) == pytest.approx(ends, abs=6e-4)
        assert row.published_is == ("below" if ends[0] > 0 else "near")
