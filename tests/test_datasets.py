import numpy as np
import pandas as pd
import pytest
import simplejpeg
import torch
from conftest import CLASSES, draw_numbers, list_files, write_video

from health_actions.data.extraction import extract_archives, extract_frames
from health_actions.data.frames import load_frames
from health_actions.data.transforms import build_augmentation, build_input_transform
from health_actions.learning import datasets
from health_actions.learning.datasets import (
    FeatureDataset,
    FrameDataset,
    build_loader,
    cache_features,
    hash_code,
    hash_text,
    load_features,
    seed_of,
    take_clips,
)
from health_actions.models import build_model

PLAIN = build_input_transform([0.0] * 3, [1.0] * 3)
MIRRORED = [0, 2, 1]  # of CLASSES


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
        dataset = make_dataset(frames_folder, index, draw=numbers, augmentation=build_augmentation("translation"),
                               probability=0.5)
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


def mirror_items(frames_folder, index, probability) -> list[tuple[torch.Tensor, int]]:
    """Items of which some are mirrored, the same windows whatever the probability."""
    dataset = make_dataset(frames_folder, index, draw=(0, 1), augmentation=build_augmentation("mirror"),
                           probability=probability, mirrored=MIRRORED)
    return [dataset[number] for number in range(len(dataset))]


def test_with_probability_0_no_clip_is_augmented(frames_folder, index):
    plain = make_dataset(frames_folder, index, draw=(0, 1))
    for number, (clip, label) in enumerate(mirror_items(frames_folder, index, 0.0)):
        assert torch.equal(clip, plain[number][0]) and label == plain[number][1]


def test_with_probability_1_every_clip_and_its_class_are_mirrored(frames_folder, index):
    plain = mirror_items(frames_folder, index, 0.0)
    for (clip, label), (expected, before) in zip(mirror_items(frames_folder, index, 1.0), plain, strict=True):
        assert torch.equal(clip, expected.flip(-1)) and label == MIRRORED[before]


def test_the_label_is_mirrored_where_the_clip_is_and_nowhere_else(frames_folder, index):
    plain, items = mirror_items(frames_folder, index, 0.0), mirror_items(frames_folder, index, 0.5)
    flipped = [torch.equal(clip, before.flip(-1)) for (clip, _), (before, _) in zip(items, plain, strict=True)]
    assert 0 < sum(flipped) < len(flipped)
    assert [label for _, label in items] == [MIRRORED[before] if flip else before
                                             for (_, before), flip in zip(plain, flipped, strict=True)]


def test_probability_is_the_share_of_clips_that_are_augmented(frames_folder, index):
    plain = make_dataset(frames_folder, index.head(1), window=10)[0][0]
    changed = sum(not torch.equal(plain, make_dataset(
        frames_folder, index.head(1), window=10, draw=(0, epoch), augmentation=build_augmentation("contrast"),
        probability=0.3)[0][0]) for epoch in range(200))
    assert 40 < changed < 80


def test_drawing_an_item_leaves_the_global_randomness_alone(frames_folder, index):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make_dataset(frames_folder, index, draw=(0, 1), augmentation=build_augmentation("contrast"), probability=1.0)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_frames_that_were_extracted_again_are_not_taken_from_memory(tmp_path):
    write_video(tmp_path / "clips" / "Step_1" / "a.mp4", draw_numbers(), crf=8)
    last = []
    for stride in (4, 2):
        clips = extract_frames(tmp_path / "clips", tmp_path / "frames", CLASSES, sizes=[32], length=8, stride=stride,
                               processes=1)
        last.append(make_dataset(tmp_path / "frames", clips)[0][0][:, -1].mean() * 255)
    assert last == pytest.approx([10 + 5 * 28, 10 + 5 * 14], abs=3)


FEATURES = torch.arange(3 * 4 * 6).reshape(3, 4, 6, 1).half()  # copies, clips, frames, width


def take_item(epoch=0, **settings) -> tuple[torch.Tensor, int]:
    """The item of the third clip, which is of class 1; all its six frames unless another window is asked for."""
    dataset = FeatureDataset(FEATURES, [2, 0], [1, 0], **{"window": 6, "draw": (0, epoch), **settings})
    assert len(dataset) == 2
    return dataset[0]


def test_an_item_of_features_is_a_window_and_a_class_number():
    item, label = take_item(window=4, draw=None)
    assert item.shape == (4, 1) and item.dtype == torch.float32 and label == 1
    assert item.flatten().tolist() == [13, 14, 15, 16]  # the centre 4 of 6


def test_random_windows_of_features_stand_at_every_place():
    assert {int(take_item(epoch, window=4)[0][0]) for epoch in range(30)} == {12, 13, 14}


def test_an_epoch_draws_the_same_features_again():
    for epoch in range(5):
        first, again = (take_item(epoch, window=4, probability=0.5)[0] for _ in range(2))
        assert torch.equal(first, again)


@pytest.mark.parametrize(("probability", "copies"), [(0.0, {12}), (1.0, {36, 60}), (0.5, {12, 36, 60})])
def test_features_come_from_the_augmented_copies_with_a_probability(probability, copies):
    assert {int(take_item(epoch, probability=probability)[0][0]) for epoch in range(60)} == copies


def test_probability_is_the_share_of_augmented_features():
    drawn = [int(take_item(epoch, probability=0.3)[0][0]) != 12 for epoch in range(200)]
    assert 40 < sum(drawn) < 80


def test_the_label_is_mirrored_where_the_features_are():
    items = [take_item(epoch, probability=0.5, mirrored=MIRRORED) for epoch in range(20)]
    labels = {int(item[0]) == 12: label for item, label in items}
    assert labels == {True: 1, False: 2}
    assert all(labels[int(item[0]) == 12] == label for item, label in items)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_model("cnn_lstm_efficientnet_lite0", num_classes=3, frames=8, size=32, freeze=True, lstm_width=8)


def compute(model, frames_folder, index, cache, **settings):
    return load_features(cache_features(model, frames_folder, index, cache, **{
        "size": 32, "input_transform": PLAIN, "precision": "32-true", "key": "a model", **settings}))


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


@pytest.mark.parametrize("changed", [{"key": "another model"}, {"precision": "bf16-mixed"},
                                     {"input_transform": build_input_transform([0.5] * 3, [1.0] * 3)},
                                     {"input_transform": build_input_transform([0.0] * 3, [1.0] * 3, "bgr")},
                                     {"augmentation": build_augmentation("contrast")}, {"copies": 2}, {"seed": 1}])
def test_other_settings_have_other_features(backbone, frames_folder, index, tmp_path, changed):
    settings = {"augmentation": build_augmentation("mirror"), "copies": 1}
    compute(backbone, frames_folder, index.head(2), tmp_path, **settings)
    before = list_files(tmp_path)
    compute(backbone, frames_folder, index.head(2), tmp_path, **settings)
    assert list_files(tmp_path) == before
    compute(backbone, frames_folder, index.head(2), tmp_path, **settings | changed)
    assert len(list_files(tmp_path)) > len(before)


def test_untouched_clips_are_computed_once_for_all_augmentations(backbone, frames_folder, index, tmp_path):
    for name in ("none", "mirror", "contrast"):
        compute(backbone, frames_folder, index.head(2), tmp_path, augmentation=build_augmentation(name),
                copies=int(name != "none"))
    assert len(list_files(tmp_path)) == 3


def test_features_in_bfloat16_are_nearly_those_in_float32(backbone, frames_folder, index, tmp_path):
    exact, fast = (compute(backbone, frames_folder, index.head(2), tmp_path, precision=precision)
                   for precision in ("32-true", "bf16-mixed"))
    assert not torch.equal(fast, exact)
    assert (fast - exact).abs().mean() < 0.02 * exact.abs().mean()


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
    features = compute(backbone, frames_folder, few, tmp_path, augmentation=build_augmentation("translation"), copies=2)
    assert features.shape[0] == 3
    assert torch.equal(features[0], compute(backbone, frames_folder, few, tmp_path)[0])
    assert all(not torch.equal(features[one], features[two]) for one, two in [(0, 1), (0, 2), (1, 2)])


def test_mirrored_features_are_those_of_the_mirrored_frames(backbone, frames_folder, index, tmp_path):
    few = index.head(2)
    features = compute(backbone, frames_folder, few, tmp_path, augmentation=build_augmentation("mirror"), copies=1)
    frames = torch.from_numpy(load_frames(frames_folder, few["clip"][1], 32)).permute(3, 0, 1, 2).flip(-1) / 255
    with torch.inference_mode():
        expected = backbone.encode(frames[None])[0]
    torch.testing.assert_close(features[1, 1].float(), expected, atol=5e-3, rtol=5e-3)


def test_computing_features_leaves_the_model_as_it_was(backbone, frames_folder, index, tmp_path):
    backbone.train()
    compute(backbone, frames_folder, index.head(2), tmp_path)
    assert backbone.training and backbone.fc.training


def test_a_split_has_each_clip_once_with_what_its_frames_depend_on(splits, index):
    clips = take_clips(splits, index)
    assert list(clips) == ["clip", "class", "content", "length", "stride"]
    assert list(clips["clip"]) == list(splits["clip"].drop_duplicates())
    expected = index.set_index("clip").loc[list(clips["clip"])]
    assert clips["content"].tolist() == expected["content"].tolist()
    assert clips["stride"].tolist() == expected["stride"].tolist()


def test_a_hash_tells_texts_and_their_borders_apart():
    assert hash_text("a", "bc") == hash_text("a", "bc")
    assert len({hash_text(*texts) for texts in [("a", "bc"), ("ab", "c"), ("abc",), ("bc", "a")]}) == 4


def test_the_codes_hash_is_one_of_all_its_files_but_the_renderer(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "synthetic").mkdir(parents=True)
    (package / "datasets.py").write_text("one")
    monkeypatch.setattr("health_actions.learning.datasets.__file__", str(package / "datasets.py"))
    hashes = []
    for file in ("datasets.py", "synthetic/hands.py", "models.py"):
        (package / file).write_text("two")
        hashes.append(hash_code.__wrapped__())
    assert hashes[0] == hashes[1] != hashes[2]


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


def test_pictures_are_decoded_once_while_they_are_in_memory(tmp_path, monkeypatch):
    write_video(tmp_path / "clips" / "step_1" / "a.mp4", draw_numbers(12))
    index = extract_archives(tmp_path / "clips", tmp_path / "frames", CLASSES, height=32, naming="handwash",
                             processes=1)
    decoded, keep, decode = [], datasets.decode_kept.cache, simplejpeg.decode_jpeg
    keep.clear()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda picture: decoded.append(picture) or decode(picture))
    dataset = make_dataset(tmp_path / "frames", index, stride=1)
    first, again = dataset[0][0], dataset[0][0]
    assert torch.equal(first, again) and len(decoded) == 8 == len(keep)
    assert keep.currsize == sum(picture.nbytes for picture in keep.values()) <= datasets.DECODED_BYTES
