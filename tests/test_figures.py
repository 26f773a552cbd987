import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.collections import LineCollection

from health_actions.figures.pictures import overlay_saliency, show_snapshots, show_strips, take_squares
from health_actions.figures.scores import plot_curves
from health_actions.figures.style import plot_intervals, save_figure
from health_actions.figures.tables import show_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5), st.booleans())
def test_every_value_has_its_interval_and_published_ones_are_marked(drawn, bars):
    low, value, high = np.sort(np.array(drawn), axis=1).T
    table = pd.DataFrame({"model": [f"m{row}" for row in range(len(drawn))], "top1": value, "low": low, "high": high,
                          "published_top1": value / 2})
    figure = plot_intervals(table, "model", {"top-1": {"here": "top1", "published": "published_top1"}}, bars=bars)
    [axis] = figure.axes
    intervals = [sorted(segment[:, 0]) for lines in axis.collections if isinstance(lines, LineCollection)
                 for segment in lines.get_segments()]
    assert np.allclose(intervals, np.column_stack([low, high]))
    assert [text.get_text() for text in axis.get_yticklabels()] == list(table["model"])
    if bars:
        assert np.allclose([bar.get_width() for bar in axis.patches], value)
    published = next(line for line in axis.lines if line.get_label() == "published")
    assert np.allclose(published.get_xdata(), value / 2)
    pyplot.close(figure)


def test_groups_lie_beside_each_other_and_missing_ones_are_left_out():
    table = pd.DataFrame({"model": ["a", "a", "b"], "start": ["x", "y", "y"], "top1": [0.1, 0.2, 0.3],
                          "low": 0.05, "high": 0.4, "empty": np.nan})
    [axis] = plot_intervals(table, "model", {"top-1": {"": "top1", "gone": "empty"}}, group="start", chance=0.5).axes
    places = {bar.get_width(): bar.get_y() + bar.get_height() / 2 for bar in axis.patches if bar.get_width() > 0}
    assert places == pytest.approx({0.1: -0.2, 0.2: 0.2, 0.3: 1.2})
    assert axis.get_legend_handles_labels()[1] == ["chance", "x", "y"]


def test_a_chart_has_the_same_bytes_at_every_run(tmp_path):
    history = pd.DataFrame({"model": "a", "fold": [1, 2], "epoch": 1, "value": [0.3, 0.5]})
    for name in ("one", "two"):
        save_figure(plot_curves(history, "clip top-1", col="model").figure, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_saliency_is_bright_where_it_is_and_frames_are_grey_elsewhere():
    saliency = np.zeros((2, 32, 32))
    saliency[:, 8:16, 8:16] = 5
    shown = overlay_saliency(np.full((2, 64, 96, 3), 100, np.uint8), saliency)
    assert shown.shape == (2, 64, 96, 3) and (shown[:, 60, 90] == 60).all() and (shown[:, 24, 36].sum(1) > 300).all()


def test_pictures_of_any_shape_stand_in_rows():
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
    assert [len(axis.images) for axis in show_strips({"one": frames, "two": frames[:2]}).axes] == [5, 2]
    figure = show_snapshots({"a": [frames[0], frames[1][:, :20]]}, captions={"a": ["x", "y"]},
                            boxes={"a": [[(0, 0, 10, 10)], []]})
    assert len(figure.axes[0].patches) == 1 and [text.get_text() for text in figure.axes[0].texts] == ["x", "y"]
    assert len(show_snapshots({"a": list(frames), "none": []}).axes) == 2
    assert take_squares(frames, 3).shape == (3, 32, 32, 3)
    assert (take_squares(frames, 2) == frames[[0, 4], :, 8:40]).all()


@pytest.mark.parametrize(("training", "heading", "grey"), [
    ([192, 0], "training clips", False), ([0.95, 0.5], "on training clips", True)], ids=["counts", "shares"])
def test_clips_in_training_are_counted_under_another_heading_than_the_share_that_is_right(training, heading, grey):
    shown = show_table(pd.DataFrame({"fold": [1, 2], "training": training})).to_html()
    assert f">{heading}</th>" in shown and ("gray" in shown) == grey
