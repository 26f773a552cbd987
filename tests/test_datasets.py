"""Windows of clips as pixels and as cached features: their place, crops, augmentation, labels, and what is cached."""

import copy

import pandas as pd
import pytest
import simplejpeg
import torch
from conftest import CLASSES, draw_numbers, list_files, write_video
from torch import nn

from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.data.frames import open_clip
from health_actions.data.transforms import build_augmentation, build_input_transform, build_spatial
from health_actions.learning import datasets, features
from health_actions.learning.datasets import ClipDataset, FeatureDataset, build_loader, derive_generator
from health_actions.learning.recipe import Recipe
from health_actions.models import build_model

PLAIN = build_input_transform([0.0] * 3, [1.0] * 3)
MIRRORED = [0, 2, 1]  # of CLASSES
SQUASH, CENTRE = (build_spatial(crop, 32)[1] for crop in ("squash", "corner"))


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Starting processes takes longer than what they do here."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def make_dataset(frames_folder, clips, **settings) -> ClipDataset:
    return ClipDataset(clips, **{"classes": CLASSES, "frames_folder": frames_folder, "window": 8, "spatial": SQUASH,
                                 "input_transform": PLAIN, **settings})


def read_clip(frames_folder, name, numbers=slice(None)) -> torch.Tensor:
    """Frames of a clip as the store has them: uint8 (frames, 3, height, width)."""
    return torch.from_numpy(open_clip(frames_folder, name)[numbers]).permute(0, 3, 1, 2)


def read_squares(frames_folder, name) -> torch.Tensor:
    """A clip as a model sees it: (3, frames, 32, 32), 0-1."""
    return SQUASH(read_clip(frames_folder, name)).transpose(0, 1) / 255


# Study A's clips: sampled frames, the whole picture scaled to a square.


def test_an_item_is_a_window_of_frames_and_a_class_number(frames_folder, index):
    dataset = make_dataset(frames_folder, index)
    assert len(dataset) == 12
    clip, label = dataset[5]
    assert clip.shape == (3, 8, 32, 32) and clip.dtype == torch.float32
    assert CLASSES[label] == index["class"][5]
    torch.testing.assert_close(clip, read_squares(frames_folder, index["clip"][5])[:, 1:9])  # the centre 8 of 10


@pytest.mark.parametrize("spatial", [SQUASH, build_spatial("corner", 32)[0]], ids=["squash", "corner"])
def test_the_same_seed_and_epoch_give_the_same_items_and_another_epoch_others(frames_folder, index, spatial):
    before = torch.get_rng_state()

    def draw(*numbers):
        dataset = make_dataset(frames_folder, index, draw=numbers, augmentation=build_augmentation("translation"),
                               probability=0.5, spatial=spatial)
        return [dataset[number][0] for number in (*range(12), *range(12))]

    first, again, other = draw(0, 1), draw(0, 1), draw(0, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(first[:12], first[12:], strict=True))
    assert 0 < sum(not torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before), "global randomness is left alone"


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_the_label_is_mirrored_where_the_clip_is_and_nowhere_else(probability, frames_folder, index):
    plain = make_dataset(frames_folder, index, draw=(0, 1))
    items = make_dataset(frames_folder, index, draw=(0, 1), augmentation=build_augmentation("mirror"),
                         probability=probability, mirrored=MIRRORED)
    plain, items = ([dataset[number] for number in range(12)] for dataset in (plain, items))
    flipped = [torch.equal(clip, before.flip(-1)) for (clip, _), (before, _) in zip(items, plain, strict=True)]
    kept = [torch.equal(clip, before) for (clip, _), (before, _) in zip(items, plain, strict=True)]
    assert all(one != other for one, other in zip(flipped, kept, strict=True))
    assert sum(flipped) == 12 * probability if probability in (0, 1) else 0 < sum(flipped) < 12
    assert [label for _, label in items] == [MIRRORED[before] if flip else before
                                             for (_, before), flip in zip(plain, flipped, strict=True)]


def test_a_change_sees_whole_frames_before_anything_else(frames_folder, index):
    seen = []

    def change(frames, clip, numbers):
        seen.append((frames.shape, frames.dtype, clip, numbers.tolist()))
        return 255 - frames

    clip, _ = make_dataset(frames_folder, index, change=change)[3]
    assert seen == [((8, 3, 32, 48), torch.uint8, index["clip"][3], list(range(1, 9)))]
    torch.testing.assert_close(clip, 1 - read_squares(frames_folder, index["clip"][3])[:, 1:9], atol=0.005, rtol=0)
    plain, _ = make_dataset(frames_folder, index)[3]
    torch.testing.assert_close(plain, read_squares(frames_folder, index["clip"][3])[:, 1:9])


def test_frames_that_were_extracted_again_are_not_taken_from_memory(tmp_path):
    write_video(tmp_path / "clips" / "Step_1" / "a.mp4", draw_numbers(), crf=8)
    folders, clips, last = (tmp_path / "clips", tmp_path / "frames"), find_clips(tmp_path / "clips", CLASSES), []
    for stride in (4, 2):
        index = extract_frames(*folders, clips, height=32, length=8, stride=stride, workers=1)
        last.append(make_dataset(tmp_path / "frames", index)[0][0][:, -1].mean() * 255)
    assert last == pytest.approx([10 + 5 * 28, 10 + 5 * 14], abs=3)


@pytest.mark.parametrize(("spatial", "kept"), [(SQUASH, (3, 32, 32)), (CENTRE, (3, 32, 32)),
                                               (build_spatial("corner", 32)[0], (3, 32, 48))], ids=str)
def test_frames_are_decoded_once_and_scaled_once_where_that_is_fixed(spatial, kept, frames_folder, index, monkeypatch):
    decoded, decode = [], simplejpeg.decode_jpeg
    datasets.FRAMES.clear()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda picture: decoded.append(picture) or decode(picture))
    dataset = make_dataset(frames_folder, index, spatial=spatial, draw=(0, 1))
    first, again = dataset[0][0], dataset[0][0]
    assert torch.equal(first, again) and len(decoded) == 8 == len(datasets.FRAMES)
    assert {frame.shape for frame in datasets.FRAMES.values()} == {kept}
    assert datasets.FRAMES.currsize == sum(frame.nbytes for frame in datasets.FRAMES.values())


def test_the_first_window_is_the_centre_and_further_ones_are_spread_from_begin_to_end(frames_folder, index):
    dataset = {"window": 4, "stride": 2, "spatial": CENTRE}  # as of study B: every second frame, squares are cropped
    clip = CENTRE(read_clip(frames_folder, index["clip"][0])).transpose(0, 1) / 255
    torch.testing.assert_close(make_dataset(frames_folder, index, **dataset)[0][0], clip[:, 1:9:2])
    items, _ = make_dataset(frames_folder, index, **dataset, windows=3)[0]
    torch.testing.assert_close(items, torch.stack([clip[:, start:start + 8:2] for start in (1, 0, 1, 2)]))


# Cached features.

FEATURES = torch.arange(3 * 4 * 6).reshape(3, 4, 6, 1).half()  # copies, clips, frames, width
TWO_CLIPS = pd.DataFrame({"clip": ["c", "a"], "class": [CLASSES[1], CLASSES[0]]})


def take_item(epoch=0, **settings) -> tuple[torch.Tensor, int]:
    """The item of clip c, which is of class 1; all its six frames unless another window is asked for."""
    dataset = FeatureDataset(TWO_CLIPS, classes=CLASSES, features=FEATURES, rows={"a": 0, "b": 1, "c": 2},
                             **{"window": 6, "draw": (0, epoch), **settings})
    assert len(dataset) == 2
    return dataset[0]


def test_an_item_of_features_is_a_window_and_a_class_number():
    item, label = take_item(window=4, draw=None)
    assert item.shape == (4, 1) and item.dtype == torch.float32 and label == 1
    assert item.flatten().tolist() == [13, 14, 15, 16]  # the centre 4 of 6
    assert {int(take_item(epoch, window=3)[0][0]) for epoch in range(30)} == {12, 13, 14}


@pytest.mark.parametrize(("probability", "copies"), [(0.0, {12}), (1.0, {36, 60}), (0.5, {12, 36, 60})])
def test_features_come_from_the_augmented_copies_with_a_probability(probability, copies):
    items = [take_item(epoch, probability=probability, mirrored=MIRRORED) for epoch in range(100)]
    drawn = [int(item[0]) for item, _ in items]
    assert set(drawn) == copies and abs(sum(first != 12 for first in drawn) - 100 * probability) < 15
    assert [label for _, label in items] == [1 if first == 12 else MIRRORED[1] for first in drawn]


def make_recipe(**settings) -> Recipe:
    return Recipe(**{"architecture": "cnn_lstm_efficientnet_lite0", "options": {"freeze": True, "lstm_width": 8},
                     "size": 32, "window": 8, "epochs": 1, "batch_size": 4, "learning_rate": 0.003,
                     "betas": [0.9, 0.999], "weight_decay": 0.0, "gamma": 0.9, "precision": "32-true",
                     "augmented_copies": 1, **settings})


def compute(recipe, frames_folder, clips, cache) -> torch.Tensor:
    return features.load_features(features.prepare_features(recipe, clips, CLASSES, frames_folder, cache))


def encode(recipe, squares) -> torch.Tensor:
    """Features of one clip by the recipe's network: squares (3, frames, size, size), 0-1."""
    network = features.build_network(recipe, CLASSES).eval()
    mean, std = (torch.tensor(values).reshape(3, 1, 1, 1) for values in recipe.normalisation)
    with torch.inference_mode():
        return network.encode(((squares - mean) / std)[None])[0]


@pytest.mark.parametrize("settings", [{}, {"colour": "bgr", "normalise": False}], ids=str)
def test_features_are_those_of_the_backbone(settings, frames_folder, index, tmp_path):
    recipe = make_recipe(**settings)
    found = compute(recipe, frames_folder, index, tmp_path)
    squares = read_squares(frames_folder, index["clip"][7])
    expected = encode(recipe, squares.flip(0) if settings else squares)
    assert found.shape == (1, 12, 10, expected.shape[1]) and found.dtype == torch.float16
    torch.testing.assert_close(found[0, 7].float(), expected, atol=5e-3, rtol=5e-3)


def test_features_are_computed_once(frames_folder, index, tmp_path, monkeypatch):
    first = compute(make_recipe(), frames_folder, index.head(2), tmp_path)
    [name] = list_files(tmp_path)
    monkeypatch.setattr(features, "_encode", lambda *_, **__: pytest.fail("computed again"))
    assert torch.equal(compute(make_recipe(learning_rate=0.1, epochs=7), frames_folder, index.head(2), tmp_path), first)
    assert list_files(tmp_path) == [name]


@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.99])
def test_a_damaged_file_of_features_is_computed_again(frames_folder, index, tmp_path, keep):
    first = compute(make_recipe(), frames_folder, index.head(2), tmp_path)
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.unlink()  # not overwritten: `first` still lies in it
    file.write_bytes(content[:keep if isinstance(keep, int) else int(keep * len(content))])
    assert torch.equal(compute(make_recipe(), frames_folder, index.head(2), tmp_path), first)


@pytest.mark.parametrize("changed", [
    {"options": {"freeze": True, "grid": 2}}, {"precision": "bf16-mixed"}, {"normalise": False}, {"colour": "bgr"},
    {"augmentation": "contrast"}, {"augmentation": "translation", "augmented_copies": 2}, {"seed": 1}], ids=str)
def test_other_settings_have_other_features(frames_folder, index, tmp_path, changed):
    base = {"augmentation": "translation"}
    compute(make_recipe(**base), frames_folder, index.head(1), tmp_path)
    before = list_files(tmp_path)
    compute(make_recipe(**base), frames_folder, index.head(1), tmp_path)
    assert list_files(tmp_path) == before
    compute(make_recipe(**base | changed), frames_folder, index.head(1), tmp_path)
    assert len(list_files(tmp_path)) > len(before)


@pytest.mark.parametrize(("augmentation", "versions"), [("none", 1), ("mirror", 2), ("contrast", 4)])
def test_each_clip_has_its_copies_and_the_first_is_not_augmented(augmentation, versions, frames_folder, index,
                                                                 tmp_path):
    few, recipe = index.head(2), make_recipe(augmentation=augmentation, augmented_copies=3)
    found = compute(recipe, frames_folder, few, tmp_path)
    assert len(list_files(tmp_path)) == min(2, versions), "untouched clips serve all augmentations"
    assert found.shape[:3] == (versions, 2, 10)
    assert torch.equal(found[0], compute(make_recipe(), frames_folder, few, tmp_path)[0])
    assert all(not torch.equal(found[one], found[two]) for one in range(versions) for two in range(one))
    if augmentation == "mirror":
        expected = encode(recipe, read_squares(frames_folder, few["clip"][1]).flip(-1))
        torch.testing.assert_close(found[1, 1].float(), expected, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("settings", [{"options": {"freeze": False}}, {"crop": "corner"}], ids=str)
def test_only_a_frozen_backbone_with_fixed_crops_has_features(settings, index, frames_folder, tmp_path):
    assert features.prepare_features(make_recipe(**settings), index, CLASSES, frames_folder, tmp_path) is None
    assert list_files(tmp_path) == []


@pytest.mark.parametrize("backbone", ["resnet50", "alexnet", "efficientnet_lite0", "densenet121"])
def test_a_backbone_gives_the_same_features_with_its_normalisations_fused(backbone):
    torch.manual_seed(0)
    plain = build_model(f"cnn_lstm_{backbone}", num_classes=12, frames=8, size=64).train()
    images = torch.rand(4, 3, 8, 64, 64)
    with torch.no_grad():
        for _ in range(3):
            plain(images)  # batch statistics that are not 0 and 1
    plain.eval()
    fused = copy.deepcopy(plain)
    features.fuse_normalisation(fused.features)
    left = [layer for layer in fused.features.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert backbone == "alexnet" or len(left) < sum(
        isinstance(layer, nn.BatchNorm2d) for layer in plain.features.modules())
    with torch.inference_mode():
        torch.testing.assert_close(fused.encode(images), plain.encode(images), rtol=1e-3, atol=1e-3)


# Hashes, loaders.


def test_a_loader_has_one_order_for_a_generator_however_often_it_is_begun():
    items = pd.Series(range(20))

    def order(*numbers):
        loader = build_loader(items, batch_size=6, shuffle=derive_generator(*numbers))
        first, again = ([int(item) for batch in loader for item in batch] for _ in range(2))
        assert first == again
        return first

    assert [int(item) for batch in build_loader(items, batch_size=6) for item in batch] == list(range(20))
    assert order(0, 1) == order(0, 1) != order(0, 2)
    assert sorted(order(0, 1)) == list(range(20))


def test_clips_for_a_gpu_are_decoded_by_processes_that_share_the_cores(monkeypatch):
    monkeypatch.setattr(datasets.joblib, "cpu_count", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    items = pd.Series(range(4))
    assert [build_loader(items, batch_size=1, device=device).num_workers for device in ("cpu", "cuda")] == [0, 8]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert build_loader(items, batch_size=1, device="cuda").num_workers == 3
