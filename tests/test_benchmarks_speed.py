"""The bench measures what it says: both sides do the same, on tiny clips and networks here."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, draw_square, write_video
from PIL import Image
from torch import nn

sys.path.insert(0, str(ROOT))

from benchmarks import bench, plain  # noqa: E402
from health_actions.data.extraction import extract_archives  # noqa: E402
from health_actions.data.frames import open_clip  # noqa: E402

HEIGHT = 48


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> bench.Setting:
    """Three clips of 12 frames, named as NTU's are, extracted both ways."""
    work = tmp_path_factory.mktemp("bench")
    for number, step in ((43, (2, 0)), (44, (0, 2)), (49, (0, -2))):
        write_video(work / "videos" / f"S001C001P001R001A0{number}_rgb.mp4", draw_square(step, frames=12))
    values = bench.read_values() | {"window": 8, "stride": 1, "size": 32, "batch_size": 2}
    setting = bench.Setting(work / "videos", work, values, HEIGHT)
    assert plain.extract(setting.paths, work / "folders", height=HEIGHT) == 36
    extract_archives(setting.videos, work / "archives", setting.classes, height=HEIGHT, processes=1)
    return setting


def test_both_extract_the_same_pictures(setting):
    for video in setting.paths:
        archive, folder = open_clip(setting.work / "archives", video.stem), setting.work / "folders" / video.stem
        pictures = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.jpg"))]
        assert len(archive) == len(pictures) == int((folder / "n_frames").read_text()) == 12
        assert np.abs(archive[:].astype(float) - np.stack(pictures)).mean() < 3  # other filters scaled them


def test_both_load_the_same_clips(setting):
    clips = setting.catalogue
    ours, theirs = (torch.cat([items for items, _ in loader]) for loader in (
        bench.build_our_loader(setting, clips, 0, training=False),
        bench.build_plain_loader(setting, clips, training=False)))
    assert ours.shape == theirs.shape == (3, 3, 8, 32, 32)
    assert (ours - theirs).abs().mean() * setting.values["std"][0] * 255 < 3  # grey values
    labels = [torch.cat([labels for _, labels in loader]) for loader in (
        bench.build_our_loader(setting, clips, 0, training=False),
        bench.build_plain_loader(setting, clips, training=False))]
    assert torch.equal(*labels) and labels[0].tolist() == [0, 2, 1]  # falling_down, headache, fan_self by the alphabet
    for loader in (bench.build_our_loader(setting, clips, 0, training=True),
                   bench.build_plain_loader(setting, clips, training=True)):
        assert [items.shape for items, _ in loader] == [(2, 3, 8, 32, 32), (1, 3, 8, 32, 32)]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"])
def test_both_networks_give_the_same_logits(setting, name):
    clips, _ = bench.make_batch(setting)
    ours, theirs = (bench.make_network(setting, name, build).eval() for build in (
        bench.build_model, plain.build_plain_model))
    assert {type(layer) for layer in theirs.modules() if isinstance(layer, nn.Conv3d)} == {nn.Conv3d}
    assert all(weights.is_contiguous() for weights in theirs.parameters())
    with torch.inference_mode():
        logits = ours(clips)
        torch.testing.assert_close(plain.predict(theirs, [(clips, None)]), logits, rtol=1e-4, atol=1e-5)
    assert logits.std() > 0


def test_both_steps_learn(setting):
    """In float32, without dropout, one step changes the weights of both in the same way."""
    batch = bench.make_batch(setting)
    networks = [bench.make_network(setting, "squeezenet", build) for build in (
        bench.build_model, plain.build_plain_model)]
    before = networks[0].features[0].weight.detach().clone()
    for network in networks:
        network.classifier[0].p = 0.0
    assert len(list(plain.train(networks[1], bench._build_plain_optimizer(setting, networks[1]), [batch]))) == 1
    classifier = bench._build_classifier(setting, networks[0].train(), "squeezenet")
    [optimizer], _ = classifier.configure_optimizers()
    classifier.on_train_epoch_start()
    classifier.training_step(batch, 0).backward()
    optimizer.step()
    changes = [network.features[0].weight.detach() - before for network in networks]
    assert changes[0].abs().max() > 0
    torch.testing.assert_close(*changes, rtol=1e-2, atol=1e-6)


@pytest.fixture(scope="module")
def comparisons(setting) -> list[bench.Comparison]:
    large = bench.replace(setting, videos=setting.work / "large")
    bench.enlarge_videos(setting.paths[:1], large.videos, size=(192, 128))
    return bench.list_comparisons(setting, large, 1, ["squeezenet"])


def test_all_sides_do_as_much(comparisons):
    counts = {comparison.what: {prepare()() for prepare in comparison.sides.values()} for comparison in comparisons}
    assert counts == {"extraction": {36}, "extraction, 1920 x 1080 pixels": {12},
                      "loading of training clips, first epochs": {15}, "loading of training clips, later epochs": {15},
                      "training step, squeezenet": {2}, "inference, squeezenet": {2},
                      "epoch with validation, squeezenet": {3}}


def test_sides_are_measured_in_processes_of_their_own(comparisons):
    inference = next(comparison for comparison in comparisons if comparison.what.startswith("inference"))
    measured = bench.compare(inference)
    assert measured.keys() == {"plain", "ours"}
    assert all(0 < seconds < 60 and 100 < peak < 5000 for seconds, peak in measured.values())


def test_the_table_has_every_row(comparisons):
    measured = [(comparison, {side: (0.004 if side == "ours" else 0.002 if "alone" in side else 0.01, 500.0)
                              for side in comparison.sides}) for comparison in comparisons]
    table = bench.tabulate(measured).set_index("what")
    assert len(table) == 2 * 4 + 5 + 7 + 1 and table.index.is_unique
    assert table.loc["extraction"].tolist() == ["frames/s", 100.0, 250.0, 2.5, 1.0, "yes"]
    assert table.loc["extraction, against decoding alone"].tolist() == ["frames/s", 500.0, 250.0, 0.5, 0.8, "no"]
    assert table.loc["extraction, against decoding and conversion alone", "met"] == ""
    assert table.loc["loading of training clips, later epochs", ["target", "met"]].tolist() == [5.0, "no"]
    assert table.loc["training step, squeezenet", ["unit", "plain", "ours", "met"]].tolist() == [
        "ms per clip", 10.0, 4.0, "yes"]
    assert table.loc["peak memory, inference, squeezenet", ["unit", "plain", "ratio", "met"]].tolist() == [
        "MB", 500.0, 1.0, ""]


def test_what_is_missed_has_its_limit(comparisons):
    measured = [(comparison, {side: (0.004 if side == "ours" else 0.002 if side == "decoding alone" else 0.003, 1.0)
                              for side in comparison.sides}) for comparison in comparisons]
    said = bench.explain(bench.tabulate(measured))
    assert "missed: extraction, against decoding alone: 0.50 instead of 0.8; " \
           "decoding, conversion and JPEG alone reaches 0.67, ours 0.75 of that" in said
    assert "missed: loading of training clips, later epochs: 0.75 instead of 5; " \
           "transforms alone reaches 1.00, ours 0.75 of that" in said
    assert all(line.startswith("missed: ") for line in said)


def test_the_mean_of_the_networks_is_a_row(comparisons):
    step = next(comparison for comparison in comparisons if comparison.what.startswith("training step"))
    measured = [(step, {"plain": (ratio, 1.0), "ours": (1.0, 1.0)}) for ratio in (2.0, 8.0)]
    row = bench.tabulate(measured).set_index("what").loc["training step, geometric mean of 2"]
    assert row["ratio"] == pytest.approx(4) and row["target"] == 3 and row["met"] == "yes"


def test_what_is_not_there_is_told(tmp_path):
    asked = {"clips": 3, "steps": 1, "values": bench.read_values()}
    with pytest.raises(ValueError, match="no row is called nothing; there are extraction, loading"):
        bench.run(tmp_path, tmp_path / "work", only=["nothing"], **asked)
    with pytest.raises(FileNotFoundError, match="no videos in"):
        bench.run(tmp_path, tmp_path / "work", only=["loading"], **asked)
