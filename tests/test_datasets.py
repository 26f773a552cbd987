import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, draw_numbers, list_files, write_video

from health_actions.datasets import FeatureDataset, FrameDataset, build_loader, cache_features, seed_of
from health_actions.extraction import extract_frames
from health_actions.frames import load_frames
from health_actions.models import build_model
from health_actions.transforms import build_augmentation, build_input_transform

PLAIN = build_input_transform([0.0] * 3, [1.0] * 3)


def make_dataset(frames_folder, clips, **settings) -> FrameDataset:
    return FrameDataset(frames_folder, clips, CLASSES,
                        **{"size": 32, "window": 8, "input_transform": PLAIN, **settings})


def test_an_item_is_a_window_of_frames_and_a_class_number(frames_folder, index):
    dataset = make_dataset(frames_folder, index)
    assert len(dataset) == 12
    clip, label = dataset[5]
    assert clip.shape == (3, 8, 32, 32) and clip.dtype == torch.float32
    assert CLASSES[label] == index["class"][5]
    frames = load_frames(frames_folder, index["clip"][5], 32)[1:9]  # the centre 8 of 10
    np.testing.assert_allclose(clip.numpy(), frames.transpose(3, 0, 1, 2) / 255, rtol=1e-6)


def test_the_same_seed_and_epoch_give_the_same_items_and_another_epoch_others(frames_folder, index):
    def draw(*numbers):
        dataset = make_dataset(frames_folder, index, draw=numbers, augmentation=build_augmentation("translation", 0.5))
        return [dataset[number][0] for number in (*range(12), *range(12))]

    first, again, other = draw(0, 1), draw(0, 1), draw(0, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(first[:12], first[12:], strict=True))
    assert 0 < sum(not torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_random_windows_stand_at_every_place(frames_folder, index):
    frames = torch.from_numpy(load_frames(frames_folder, index["clip"][0], 32)).permute(3, 0, 1, 2) / 255
    found = set()
    for epoch in range(12):
        clip, _ = make_dataset(frames_folder, index, draw=(0, epoch))[0]
        found |= {start for start in range(3) if torch.allclose(frames[:, start:start + 8], clip)}
    assert found == {0, 1, 2}


def test_validation_items_are_not_augmented(frames_folder, index):
    augmented = make_dataset(frames_folder, index, augmentation=build_augmentation("translation", 1.0))
    assert torch.equal(augmented[0][0], make_dataset(frames_folder, index)[0][0])


def test_drawing_an_item_leaves_the_global_randomness_alone(frames_folder, index):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make_dataset(frames_folder, index, draw=(0, 1), augmentation=build_augmentation("contrast", 1.0))[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_frames_that_were_extracted_again_are_not_taken_from_memory(tmp_path):
    write_video(tmp_path / "clips" / "Step_1" / "a.mp4", draw_numbers(), crf=8)
    last = []
    for stride in (4, 2):
        clips = extract_frames(tmp_path / "clips", tmp_path / "frames", CLASSES, sizes=[32], length=8, stride=stride,
                               processes=1)
        last.append(make_dataset(tmp_path / "frames", clips)[0][0][:, -1].mean() * 255)
    assert last == pytest.approx([10 + 5 * 28, 10 + 5 * 14], abs=3)


def test_features_come_from_one_of_the_copies():
    features = torch.arange(3 * 4 * 6).reshape(3, 4, 6, 1).half()  # copies, clips, frames, width
    rows, labels = [2, 0], [1, 0]
    assert FeatureDataset(features, rows, labels, window=4)[0][0].flatten().tolist() == [13, 14, 15, 16]
    drawn = {}
    for epoch in range(60):
        dataset = FeatureDataset(features, rows, labels, window=6, probability=0.5, draw=(0, epoch))
        item, label = dataset[0]
        assert item.shape == (6, 1) and item.dtype == torch.float32 and label == 1 and len(dataset) == 2
        assert torch.equal(item, dataset[0][0])
        drawn[int(item[0])] = drawn.get(int(item[0]), 0) + 1
    assert set(drawn) == {12, 36, 60} and 18 < drawn[12] < 42
    untouched = FeatureDataset(features, rows, labels, window=6, probability=0.0, draw=(0, 0))
    assert int(untouched[0][0][0]) == 12


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_model("cnn_lstm_efficientnet_lite0", num_classes=3, frames=8, size=32, freeze=True, lstm_width=8)


def compute(model, frames_folder, index, cache, **settings):
    return cache_features(model, frames_folder, index, cache, **{"size": 32, "input_transform": PLAIN, **settings})


def test_features_are_those_of_the_backbone(backbone, frames_folder, index, tmp_path):
    features = compute(backbone, frames_folder, index, tmp_path)
    assert features.shape == (1, 12, 10, backbone.feature_width) and features.dtype == torch.float16
    frames = torch.from_numpy(load_frames(frames_folder, index["clip"][7], 32)).permute(3, 0, 1, 2) / 255
    with torch.inference_mode():
        expected = backbone.encode(frames[None])[0]
    torch.testing.assert_close(features[0, 7].float(), expected, atol=5e-3, rtol=5e-3)


def test_features_are_computed_once(backbone, frames_folder, index, tmp_path, monkeypatch):
    first = compute(backbone, frames_folder, index, tmp_path)
    [name] = list_files(tmp_path)
    monkeypatch.setattr(backbone, "encode", lambda clips: pytest.fail("computed again"))
    assert torch.equal(compute(backbone, frames_folder, index, tmp_path), first)
    assert list_files(tmp_path) == [name]


@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.99])
def test_a_damaged_file_of_features_is_computed_again(backbone, frames_folder, index, tmp_path, keep):
    first = compute(backbone, frames_folder, index, tmp_path)
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.unlink()  # not overwritten: `first` still lies in it
    file.write_bytes(content[:keep if isinstance(keep, int) else int(keep * len(content))])
    assert torch.equal(compute(backbone, frames_folder, index, tmp_path), first)


@pytest.mark.parametrize("changed", [{"key": "other code"},
                                     {"input_transform": build_input_transform([0.5] * 3, [1.0] * 3)},
                                     {"augmentation": build_augmentation("contrast", 1.0), "copies": 1}])
def test_other_settings_have_other_features(backbone, frames_folder, index, tmp_path, changed):
    few = index.head(2)
    compute(backbone, frames_folder, few, tmp_path)
    compute(backbone, frames_folder, few, tmp_path, **changed)
    assert len(list_files(tmp_path)) == 2


def test_other_weights_have_other_features(backbone, frames_folder, index, tmp_path):
    first = compute(backbone, frames_folder, index.head(2), tmp_path)
    with torch.no_grad():
        backbone.features[0].weight.mul_(2)
    assert not torch.equal(compute(backbone, frames_folder, index.head(2), tmp_path), first)


def test_frames_sampled_in_another_way_have_other_features(backbone, tmp_path):
    write_video(tmp_path / "clips" / "Step_1" / "a.mp4", draw_numbers())
    found = []
    for stride in (4, 2):
        clips = extract_frames(tmp_path / "clips", tmp_path / "frames", CLASSES, sizes=[32], length=8, stride=stride,
                               processes=1)
        found.append(compute(backbone, tmp_path / "frames", clips, tmp_path / "cache"))
    assert not torch.equal(*found)


def test_copies_are_augmented_and_the_first_is_not(backbone, frames_folder, index, tmp_path):
    few = index.head(2)
    augmentation = build_augmentation("translation", 1.0)
    features = compute(backbone, frames_folder, few, tmp_path, augmentation=augmentation, copies=2)
    assert features.shape[0] == 3
    assert torch.equal(features[0], compute(backbone, frames_folder, few, tmp_path)[0])
    assert all(not torch.equal(features[one], features[two]) for one, two in [(0, 1), (0, 2), (1, 2)])


def test_computing_features_leaves_the_model_as_it_was(backbone, frames_folder, index, tmp_path):
    backbone.train()
    compute(backbone, frames_folder, index.head(2), tmp_path)
    assert backbone.training and backbone.fc.training


def test_a_loader_shuffles_by_its_generator_alone():
    items = pd.Series(range(20))

    def order(*numbers):
        return [int(item) for batch in build_loader(items, batch_size=6, shuffle=seed_of(*numbers)) for item in batch]

    assert [int(item) for batch in build_loader(items, batch_size=6) for item in batch] == list(range(20))
    assert order(0, 1) == order(0, 1) != order(0, 2)
    assert sorted(order(0, 1)) == list(range(20))


def test_a_loader_has_one_order_however_often_it_is_begun():
    loader = build_loader(pd.Series(range(20)), batch_size=20, shuffle=seed_of(0, 1))
    first, second = ([int(item) for batch in loader for item in batch] for _ in range(2))
    assert first == second
