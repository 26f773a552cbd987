"""No step that sees all clips at once grows faster than their number; `benchmarks/growth.py` goes up to all of NTU."""

import math

import growth
import pandas as pd
import pytest
from typer.testing import CliRunner

SIZES = [200, 2000]
RATES = pd.DataFrame([("ntu", "some", True, 3, 45.0, 2.0, 0.1, 1000.0),
                      ("ntu", "small", False, 3, 90.0, 2.0, 0.1, 10.0),
                      ("handwash", "some", True, 3, 400.0, 2.0, 0.1, 1000.0)],
                     columns=["study", "kind", "alike", "count", "frames", "extraction", "signature", "kilobytes"])


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[int, dict]:
    """What `measure_steps` gives for each size."""
    return {count: growth.measure_steps(count, tmp_path_factory.mktemp("growth")) for count in SIZES}


def make_table(growing, *, megabytes=100, step="some step", sizes=(1000, 10_000)) -> pd.DataFrame:
    """What `measure_growth` gives of a step that takes `growing(clips)` seconds."""
    return pd.DataFrame([(step, clips, growing(clips), megabytes) for clips in sizes],
                        columns=["step", "clips", "seconds", "megabytes"])


def test_names_are_those_of_the_full_set():
    names = growth.name_clips(56_880)
    assert len(set(names)) == 56_880 == len(growth.name_clips(60_000))
    assert len({name[8:12] for name in names}) == 40 and len({name[16:20] for name in names}) == 60


def test_every_clip_comes_through_every_step(results):
    assert {count: result["handled"] for count, result in results.items()} == {count: count for count in SIZES}


def test_no_step_takes_a_hundred_times_as_long_for_ten_times_the_clips(results):
    compared = growth.compare_sizes(growth.tabulate_steps(results))
    judged = compared[compared["seconds"] > 0.05]  # the processor's; what is shorter takes no minute of all of NTU
    assert judged["exponent"].max() < 1.5 and "annotations" in set(judged["step"])


def test_a_size_is_measured_in_a_process_of_its_own():
    steps, handled = growth.measure_growth([SIZES[0]])
    assert handled == SIZES[0] and (steps["clips"] == SIZES[0]).all()
    assert steps["megabytes"].between(50, growth.MOST).all()
    assert steps["megabytes"].iloc[-1] > steps["megabytes"].iloc[0] + 50  # the last one has imported torch
    assert (steps["seconds"] > 0).all()


@pytest.mark.parametrize(("growing", "told"), [
    (lambda clips: clips / 1000, False), (lambda clips: clips * math.log(clips) / 1000, False),
    (lambda clips: clips**2 / 1e6, True), (lambda clips: clips**2 / 1e9, False), (lambda clips: 3, False)])
def test_only_what_grows_faster_than_n_log_n_and_takes_long_is_told(growing, told):
    faults = growth.find_faults(make_table(growing))
    assert len(faults) == told and all("some step: from 1,000 to 10,000 clips" in fault for fault in faults)


def test_too_much_memory_is_told_once_a_size():
    steps = pd.concat([make_table(lambda clips: 1, megabytes=3000, step=step) for step in ("one", "two")])
    assert growth.find_faults(steps) == ["one: 3,000 MB at 1,000 clips, at most 2,048 MB",
                                         "one: 3,000 MB at 10,000 clips, at most 2,048 MB"]


@pytest.mark.parametrize(("growing", "lost", "code"), [
    (lambda clips: clips / 1000, 0, 0), (lambda clips: clips**2 / 1e6, 0, 1), (lambda clips: clips / 1000, 3, 1)])
def test_a_fault_or_a_lost_clip_is_an_exit_code(growing, lost, code, monkeypatch):
    monkeypatch.setattr(growth, "measure_growth", lambda sizes: (make_table(growing), sum(sizes) - lost))
    monkeypatch.setattr(growth, "measure_rates", lambda folder, clips: RATES)
    app = growth.typer.Typer()
    app.command()(growth.main)
    result = CliRunner().invoke(app, ["--size", "1000", "--size", "10000"])
    assert result.exit_code == code
    assert f"tried 11,000, handled {11_000 - lost:,}, lost {lost}" in result.output


def test_estimates_are_the_rates_times_the_clips():
    estimates = growth.estimate_sets(RATES).set_index(["set", "measured on"])
    whole = estimates.loc["NTU RGB+D, all", "some"]  # clips of 45 frames were measured, those of the set have 90
    assert whole["extraction h"] == pytest.approx(56_880 * 4 / 3600)
    assert whole["frames GB"] == pytest.approx(56_880 * 2 / 1000)
    assert estimates.loc[("hand wash", "some"), "frames GB"] == pytest.approx(0.711)
    assert math.isnan(estimates.loc[("NTU RGB+D, all", "small"), "extraction h"])
