"""The benchmark's two sides do the same work, here on tiny clips and networks, and the table says what was measured."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, draw_square, write_video
from PIL import Image

sys.path.insert(0, str(ROOT))

from benchmarks import bench, plain, sides  # noqa: E402
from health_actions.data.extraction import extract_frames  # noqa: E402
from health_actions.data.frames import open_clip  # noqa: E402

SMALL = bench.replace(bench.read_published(), window=8, stride=1, size=32, batch_size=2, precision="32-true")


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> sides.Setting:
    """Three clips of 12 frames, named as NTU's are, extracted both ways."""
    work = tmp_path_factory.mktemp("bench")
    for number, step in ((43, (2, 0)), (44, (0, 2)), (49, (0, -2))):
        write_video(work / "videos" / f"S001C001P001R001A0{number}_rgb.mp4", draw_square(step, frames=12))
    setting = sides.Setting(work / "videos", work, SMALL, height=48)
    assert plain.extract(setting.paths, work / "folders", height=48) == 36
    extract_frames(setting.videos, work / "archives", setting.catalogue, height=48, workers=1)
    return setting


def test_both_sides_extract_the_same_pictures_and_load_the_same_clips(setting):
    for video in setting.paths:
        files = sorted((setting.work / "folders" / video.stem).glob("*.jpg"))
        pictures = np.stack([Image.open(file) for file in files])
        frames = open_clip(setting.work / "archives", video.stem)[:].astype(float)
        assert frames.shape == pictures.shape and np.abs(frames - pictures).mean() < 3  # other filters scaled them
    clips = setting.catalogue
    batches = [list(loader) for loader in (sides.build_our_loaders(setting, clips.assign(subset="validation"), 0)[1],
                                           sides.build_plain_loader(setting, clips, training=False))]
    ours, theirs = (torch.cat([items for items, _ in side]) for side in batches)
    assert ours.shape == theirs.shape == (3, 3, 8, 32, 32) and (ours - theirs).abs().mean() < 3  # grey values
    assert [torch.cat([labels for _, labels in side]).tolist() for side in batches] == [[0, 2, 1], [0, 2, 1]]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"])
def test_both_networks_give_the_same_logits(setting, name):
    clips, _ = sides.make_batch(setting)
    ours, theirs = sides.start_ours(setting, name)[1].eval(), sides.make_plain_network(setting, name)
    with torch.inference_mode():
        torch.testing.assert_close(plain.predict(theirs, [(clips, None)]), ours(clips), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_all_sides_do_as_much_and_are_measured_in_processes(setting):
    large = bench.replace(setting, videos=setting.work / "large")
    bench.enlarge_videos(setting.paths[:1], large.videos, size=(192, 128))
    comparisons = bench.list_comparisons(setting, large, 1, ["squeezenet"])
    counts = [{prepare()() for prepare in comparison.sides.values()} for comparison in comparisons]
    assert counts == [{36}, {12}, {15}, {15}, {2}, {2}, {3}]
    measured = bench.compare(comparisons[-2])
    assert measured.keys() == {"plain", "ours"}
    assert all(0 < seconds < 60 and 100 < peak < 5000 for seconds, peak in measured.values())


def test_table_has_ratios_means_and_missed_targets(setting):
    comparisons = bench.list_comparisons(setting, setting, 1, ["squeezenet", "resnet18"])
    table = bench.tabulate([(row, {side: (0.004 if side == "ours" else 0.01, 500.0) for side in row.sides})
                            for row in comparisons]).set_index("what")
    assert table.loc["training step, squeezenet"].tolist() == ["ms per clip", 10.0, 4.0, 2.5, 2.0, "yes"]
    assert table.loc["training step, geometric mean of 2", ["ratio", "target", "met"]].tolist() == [2.5, 3.5, "no"]
    assert table.loc["peak memory, inference, squeezenet", ["unit", "plain", "ratio"]].tolist() == ["MB", 500.0, 1.0]
    said = "\n".join(bench.explain(table.reset_index()))
    assert "missed: training step, geometric mean of 2: 2.50 instead of 3.5" in said


@pytest.mark.parametrize("row, error", [("nothing", ValueError), ("loading", FileNotFoundError)])
def test_unknown_row_and_missing_videos_are_refused(tmp_path, row, error):
    with pytest.raises(error, match="no row is called nothing" if row == "nothing" else "no videos in"):
        bench.run(tmp_path, tmp_path / "work", only=[row], clips=3, steps=1, recipe=SMALL)
