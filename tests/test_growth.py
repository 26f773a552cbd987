"""No step that sees all clips at once grows faster than their number; `benchmarks/growth.py` goes up to all of NTU."""

import math

import growth
import pandas as pd
import pytest
from typer.testing import CliRunner

SIZES = [200, 2000]


def make_table(growing, *, megabytes=100, step="some step", sizes=(1000, 10_000)) -> pd.DataFrame:
    """What `measure_growth` gives of a step that takes `growing(clips)` seconds."""
    return pd.DataFrame([(step, clips, growing(clips), megabytes) for clips in sizes],
                        columns=["step", "clips", "seconds", "megabytes"])


@pytest.mark.slow
def test_every_clip_comes_through_every_step_in_time_that_grows_with_their_number():
    steps, handled = growth.measure_growth(SIZES)
    assert handled == sum(SIZES) and set(steps["clips"]) == set(SIZES)
    assert steps["megabytes"].between(50, growth.MOST).all() and (steps["seconds"] > 0).all()
    compared = growth.compare_sizes(steps)
    judged = compared[compared["seconds"] > 0.05]  # of the processor
    assert judged["exponent"].max() < 1.5 and "annotations" in set(judged["step"])


@pytest.mark.parametrize(("growing", "found"), [
    (lambda clips: clips / 1000, False), (lambda clips: clips * math.log(clips) / 1000, False),
    (lambda clips: clips**2 / 1e6, True), (lambda clips: clips**2 / 1e9, False), (lambda clips: 3, False)])
def test_only_steps_that_grow_faster_than_n_log_n_and_take_long_are_faults(growing, found):
    faults = growth.find_faults(make_table(growing))
    assert len(faults) == found and all("some step: from 1,000 to 10,000 clips" in fault for fault in faults)


@pytest.mark.parametrize(("growing", "lost", "code"), [
    (lambda clips: clips / 1000, 0, 0), (lambda clips: clips**2 / 1e6, 0, 1), (lambda clips: clips / 1000, 3, 1)])
def test_a_fault_or_a_lost_clip_is_an_exit_code(growing, lost, code, monkeypatch):
    monkeypatch.setattr(growth, "measure_growth", lambda sizes: (make_table(growing), sum(sizes) - lost))
    monkeypatch.setattr(growth, "estimate_sets", lambda folder, clips: pd.DataFrame({"set": ["hand wash"]}))
    app = growth.typer.Typer()
    app.command()(growth.main)
    result = CliRunner().invoke(app, ["--size", "1000", "--size", "10000"])
    assert result.exit_code == code
    assert f"tried 11,000, handled {11_000 - lost:,}, lost {lost}" in result.output


@pytest.mark.slow
def test_the_full_sets_are_estimated_from_clips_of_their_size(tmp_path):
    estimates = growth.estimate_sets(tmp_path, None).set_index("set")
    assert list(estimates.index) == ["hand wash", "NTU RGB+D, 9 classes", "NTU RGB+D, all"]
    assert (estimates[["extraction (h)", "frames (GB)"]] > 0).all(axis=None)
    whole, part = estimates.loc["NTU RGB+D, all", "frames (GB)"], estimates.loc["NTU RGB+D, 9 classes", "frames (GB)"]
    assert whole / part == pytest.approx(56_880 / 8_500)
