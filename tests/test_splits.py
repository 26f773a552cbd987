import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, HANDWASH_CLASSES, SHARED, draw_square, make_clips, write_video
from hypothesis import assume, given
from hypothesis import strategies as st

from health_actions.data.extraction import extract_frames
from health_actions.data.frames import load_frames
from health_actions.data.splits import drop_duplicates, find_duplicates, make_splits, sign, try_splits

SUBSETS = {"training", "validation", "testing"}


@st.composite
def catalogues(draw, scenes=(1, 4), recordings=(2, 7)):
    """Recordings, each in one scene, of which each shows some of the classes, some of them several times."""
    count = draw(st.integers(*scenes))
    rows = []
    for recording in range(draw(st.integers(*recordings))):
        scene = recording if recording < count else draw(st.integers(0, count - 1))
        for label in draw(st.sets(st.sampled_from(CLASSES), min_size=1)):
            for take in range(draw(st.integers(1, 3))):
                rows.append((f"{label}/{recording}_{take}", label, f"{recording:03d}", f"G{scene:02d}"))
    return make_clips(draw(st.permutations(rows)))


def check_whole(splits, clips):
    """Every clip stands in each fold once, and no subset is empty."""
    for _, part in splits.groupby("fold"):
        assert sorted(part["clip"]) == sorted(clips["clip"])
        assert set(part["subset"]) == SUBSETS


def check_apart(splits, column, subsets=("testing",)):
    """What `subsets` hold of a column stands in no other subset of the fold."""
    for _, part in splits.groupby("fold"):
        for subset in subsets:
            inside = part["subset"] == subset
            assert not set(part.loc[inside, column]) & set(part.loc[~inside, column])


@given(catalogues(recordings=(3, 7)), st.integers(3, 6), st.integers(0, 5))
def test_no_recording_is_on_two_sides_of_a_split_by_performer(clips, folds, seed):
    splits = make_splits(clips, protocol="by_performer", folds=folds, seed=seed)
    check_whole(splits, clips)
    check_apart(splits, "recording", SUBSETS)
    tested = splits.loc[splits["subset"] == "testing", "clip"]
    assert sorted(tested) == sorted(clips["clip"])  # each once


@given(catalogues(scenes=(3, 4), recordings=(4, 7)), st.integers(0, 5))
def test_no_scene_is_on_two_sides_of_a_split_by_scene(clips, seed):
    splits = make_splits(clips, protocol="by_scene", folds=5, seed=seed)
    check_whole(splits, clips)
    check_apart(splits, "scene")
    assert sorted(splits.loc[splits["subset"] == "testing", "clip"]) == sorted(clips["clip"])


@given(catalogues(recordings=(4, 7)), st.integers(0, 5))
def test_two_scenes_are_enough_for_a_split_by_scene(clips, seed):
    clips["scene"] = "G0" + (clips["recording"].astype(int) % 2).astype(str)
    splits = make_splits(clips, protocol="by_scene", folds=5, seed=seed)
    assert splits["fold"].nunique() == 2
    check_whole(splits, clips)
    check_apart(splits, "scene")
    check_apart(splits, "recording", SUBSETS)
    assert sorted(splits.loc[splits["subset"] == "testing", "clip"]) == sorted(clips["clip"])


@given(catalogues(recordings=(3, 7)), st.integers(3, 6), st.integers(0, 5))
def test_a_stratified_split_tests_every_clip_once_and_spreads_the_classes(clips, folds, seed):
    counts = clips["class"].value_counts()
    assume(counts.max() >= 3)
    splits = make_splits(clips, protocol="stratified", folds=folds, seed=seed)
    check_whole(splits, clips)
    tested = splits[splits["subset"] == "testing"]
    assert sorted(tested["clip"]) == sorted(clips["clip"])
    spread = tested.groupby(["class", "fold"]).size().unstack(fill_value=0)
    assert (spread.max(axis=1) - spread.min(axis=1)).max() <= 1


@given(catalogues(recordings=(3, 7)), st.sampled_from(["stratified", "by_performer"]), st.integers(0, 99))
def test_the_same_seed_gives_the_same_split(clips, protocol, seed):
    assume(clips["class"].value_counts().max() >= 3)
    one, two = (make_splits(clips, protocol=protocol, folds=3, seed=seed) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_another_seed_gives_another_split(index):
    drawn = {tuple(make_splits(index, protocol="stratified", folds=3, seed=seed)["subset"]) for seed in range(4)}
    assert len(drawn) > 1


def test_the_first_fold_alone_is_the_first_of_every_fold(index):
    every = make_splits(index, protocol="by_performer", folds=3)
    first = make_splits(index, protocol="by_performer", folds=3, test_on="first_fold")
    pd.testing.assert_frame_equal(first, every[every["fold"] == 1].reset_index(drop=True))


def test_a_split_of_the_folders_is_taken_as_it_is():
    given_split = ["training", "training", "validation", "testing", "testing"]
    clips = make_clips([(f"c{number}", "step_1", "001", "G01", given) for number, given in enumerate(given_split)])
    splits = make_splits(clips, protocol="by_performer", folds=3)
    assert list(splits["subset"]) == given_split and set(splits["fold"]) == {1}


def test_given_training_clips_validate_where_no_folder_does():
    clips = make_clips([*((f"c{number}", CLASSES[number % 2], f"{number // 2:03d}", "G01", "training")
                          for number in range(10)), ("t", "step_1", "009", "G01", "testing")])
    splits = make_splits(clips, protocol="stratified", folds=3)
    assert set(splits["subset"]) == SUBSETS and list(splits.loc[splits["subset"] == "testing", "clip"]) == ["t"]
    check_apart(splits, "recording", SUBSETS)


def test_given_validation_clips_are_tested_on_where_no_folder_is_for_that():
    clips = make_clips([*((f"c{number}", "step_1", f"{number:03d}", "G01", "training") for number in range(6)),
                        ("v", "step_1", "009", "G01", "validation")])
    splits = make_splits(clips, protocol="stratified", folds=3)
    assert list(splits.loc[splits["subset"] == "testing", "clip"]) == ["v"] and set(splits["subset"]) == SUBSETS


@pytest.mark.parametrize("given_split", [["testing"] * 4, ["validation"] * 4, ["training"] * 4,
                                         ["validation", "validation", "testing", "testing"],
                                         ["training", "testing", "testing", "testing"]])
def test_folders_that_leave_a_subset_empty_are_told(given_split):
    clips = make_clips([(f"c{number}", "step_1", f"{number:03d}", "G01", given)
                        for number, given in enumerate(given_split)])
    with pytest.raises(ValueError, match="train|test"):
        make_splits(clips, protocol="stratified", folds=3)


@pytest.mark.parametrize(("settings", "words"), [
    ({"protocol": "by_person"}, "unknown protocol 'by_person'; known: stratified, by_performer, by_scene"),
    ({"test_on": "last"}, "every_fold or first_fold"), ({"folds": 2}, "at least 3")])
def test_unknown_settings_are_told(index, settings, words):
    with pytest.raises(ValueError, match=words):
        make_splits(index, **{"protocol": "stratified", "folds": 3, **settings})


@pytest.mark.parametrize(("protocol", "column"), [("by_performer", "recording"), ("by_scene", "scene")])
def test_one_recording_or_scene_is_too_few_for_its_split(protocol, column):
    clips = make_clips([(f"c{number}", CLASSES[number % 3], "001", "G01") for number in range(9)])
    with pytest.raises(ValueError, match=f"split by {column} needs at least two"):
        make_splits(clips, protocol=protocol, folds=3)


def test_two_clips_are_too_few():
    with pytest.raises(ValueError, match="2 clips cannot be split"):
        make_splits(make_clips([("a", "step_1", "1", "G"), ("b", "step_1", "2", "G")]), protocol="stratified", folds=3)


def test_a_stratified_split_does_not_ask_for_several_recordings():
    clips = make_clips([(f"c{number}", CLASSES[number % 2], "001", "G01") for number in range(4)])
    try:
        check_whole(make_splits(clips, protocol="stratified", folds=3), clips)
    except ValueError as error:  # so few clips may be refused, but not with the advice to do what was done
        assert "Use the protocol stratified" not in str(error)


@given(catalogues())
def test_whatever_cannot_be_split_is_refused_with_one_line(clips):
    for protocol in ("stratified", "by_performer", "by_scene"):
        try:
            splits = make_splits(clips, protocol=protocol, folds=4)
        except ValueError as error:
            assert "\n" not in str(error) and ("clips" in str(error) or "class" in str(error))
        else:
            check_whole(splits, clips)


def test_each_protocol_is_tried_with_each_seed(index):
    protocols, seeds = ["stratified", "by_performer", "by_scene"], [0, 3]
    splits, skipped = try_splits(index, protocols=protocols, seeds=seeds, folds=3)
    assert list(splits) == list(itertools.product(protocols, seeds)) and skipped == {}
    for (protocol, seed), table in splits.items():
        pd.testing.assert_frame_equal(table, make_splits(index, protocol=protocol, folds=3, seed=seed))


def test_a_protocol_that_the_clips_do_not_allow_is_skipped_with_the_reason(index):
    splits, skipped = try_splits(index.assign(scene="G01"), protocols=["by_scene", "stratified"], seeds=[0], folds=3)
    assert list(splits) == [("stratified", 0)] and list(skipped) == ["by_scene"]
    assert "a split by scene needs at least two of them; all 12 clips are of scene 'G01'" in skipped["by_scene"]


def test_a_protocol_that_one_seed_does_not_allow_is_skipped_as_a_whole(index, monkeypatch):
    def make(clips, *, seed, **_):
        if seed == 1:
            raise ValueError("a part stays empty")

    monkeypatch.setattr("health_actions.data.splits.make_splits", make)
    assert try_splits(index, protocols=["stratified"], seeds=[0, 1], folds=3) == (
        {}, {"stratified": "a part stays empty"})


def test_protocols_are_tried_whatever_split_the_folders_give(index):
    given_split = ["training", "validation", "testing"] * 4
    arguments = {"protocols": ["by_performer"], "seeds": [0], "folds": 3}
    splits, _ = try_splits(index.assign(given_split=given_split), **arguments)
    pd.testing.assert_frame_equal(splits["by_performer", 0], try_splits(index, **arguments)[0]["by_performer", 0])


@given(st.integers(16, 90), st.integers(1, 40), st.integers(0, 9))
def test_a_signature_is_the_mean_grey_of_blocks(size, length, seed):
    frames = np.random.default_rng(seed).integers(0, 256, (length, size, size, 3), np.uint8)
    signature = sign(frames)
    assert signature.shape == (8 * 16 * 16,) and signature.dtype == np.float32
    corner = frames[0, :int(size / 16), :int(size / 16)].mean()
    assert signature[0] == pytest.approx(corner, abs=0.01)
    assert sign(np.full((length, size, size, 3), 77, np.uint8)) == pytest.approx(77)


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    """Clips of which some are there again: copied, encoded again, scaled."""
    folder, output = tmp_path_factory.mktemp("doubled"), tmp_path_factory.mktemp("frames")
    # A soft square: hard edges of small pictures change more by encoding than those of real ones.
    right, left = (np.stack([np.roll(frame, 3, 0) for frame in draw_square(step)]) for step in [(0, 2), (0, -2)])
    write_video(folder / "Step_1" / "a.mp4", right)
    (folder / "Step_2_Left").mkdir()
    (folder / "Step_2_Left" / "copy.mp4").write_bytes((folder / "Step_1" / "a.mp4").read_bytes())
    write_video(folder / "Step_1" / "encoded.mp4", right, crf=33)
    write_video(folder / "Step_1" / "scaled.mp4", right.repeat(2, axis=1).repeat(2, axis=2))
    write_video(folder / "Step_1" / "left.mp4", left)
    write_video(folder / "Step_1" / "brighter.mp4", draw_square(background=60))
    index = extract_frames(folder, output, CLASSES, sizes=[32], length=10, stride=4, processes=1)
    return index, np.stack([sign(load_frames(output, clip, 32)) for clip in index["clip"]])


def test_copies_are_found_and_different_clips_are_not(doubled):
    duplicates = find_duplicates(*doubled)
    same = ["Step_1/a", "Step_1/encoded", "Step_1/scaled", "Step_2_Left/copy"]
    assert set(zip(duplicates["clip"], duplicates["other"], strict=True)) == set(itertools.combinations(same, 2))
    identical = duplicates[duplicates["kind"] == "identical"]
    assert identical[["clip", "other", "difference", "same_class"]].values.tolist() == [
        ["Step_1/a", "Step_2_Left/copy", 0.0, False]]
    assert (duplicates["difference"] <= 2).all()


@st.composite
def signed(draw):
    """Signatures of which some are near each other, some exactly as far as the tolerance, and some equal."""
    count, length = draw(st.integers(1, 24)), draw(st.sampled_from([1, 3, 4, 70, 300]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    bases = random.integers(0, 256, (draw(st.integers(1, 4)), length))
    steps = random.integers(-draw(st.integers(0, 6)), 7, (count, length))
    return (bases[random.integers(0, len(bases), count)] + steps * random.integers(0, 2, (count, 1))).astype(np.float32)


@given(signed(), st.sampled_from([0.0, 1.0, 2.0, 3.5, 40.0]))
def test_every_pair_that_is_near_enough_is_found_and_no_other(signatures, tolerance):
    clips = make_clips([(f"c{number:02d}", CLASSES[number % 3], f"{number % 5}", "G01")
                        for number in range(len(signatures))])
    clips["content"] = [signature.tobytes() for signature in signatures]
    expected = []
    for (one, first), (other, second) in itertools.combinations(enumerate(signatures.astype(float)), 2):
        difference = np.abs(first - second).mean()
        if difference <= tolerance:
            kind = "identical" if (first == second).all() else "near-identical"
            expected.append([f"c{one:02d}", f"c{other:02d}", kind, round(difference, 2), one % 3 == other % 3,
                             one % 5 == other % 5])
    assert find_duplicates(clips, signatures, tolerance=tolerance).values.tolist() == expected


def test_many_equal_clips_are_paired_with_the_first_and_one_of_them_is_kept():
    clips = make_clips([(f"c{number:04d}", "step_1", f"{number}", "G01") for number in range(3001)])
    clips["content"] = "the same"
    signatures = np.full((3001, 4), 7.0)
    signatures[1] = 200  # one is another
    duplicates = find_duplicates(clips, signatures)
    assert len(duplicates) == 100 * 99 / 2 + 2900 and not duplicates.duplicated().any()
    assert set(duplicates["clip"]) | set(duplicates["other"]) == set(clips["clip"]) - {"c0001"}
    assert duplicates["clip"].is_monotonic_increasing  # in the order of the clips, not of how they were found
    assert list(drop_duplicates(clips, duplicates)["clip"]) == ["c0000", "c0001"]


def test_memory_stays_flat_where_sums_tell_clips_not_apart():
    random = np.random.default_rng(0)
    signatures = np.repeat(random.choice([0, 200], (800, 512)), 2, axis=1)
    signatures[:, 1::2] = 200 - signatures[:, ::2]  # every sum over neighbours is the same, no two clips are
    clips = make_clips([(f"c{number}", "step_1", f"{number}", "G01") for number in range(800)])
    tracemalloc.start()
    try:
        assert find_duplicates(clips, signatures).empty
        assert tracemalloc.get_traced_memory()[1] < 100e6  # all pairs at once: 2.6 GB
    finally:
        tracemalloc.stop()


def test_one_clip_of_each_set_of_duplicates_is_kept(doubled):
    index, signatures = doubled
    kept = drop_duplicates(index, find_duplicates(index, signatures))
    assert list(kept["clip"]) == ["Step_1/a", "Step_1/brighter", "Step_1/left"]


def test_duplicates_that_are_kept_stand_on_two_sides_and_nothing_else_is_new():
    clips = make_clips([(f"{label}/{recording}", label, f"{recording:03d}", "G01")
                        for recording in range(1, 6) for label in CLASSES])
    shown = clips["recording"].replace("005", "001")  # the fifth recording is the first one's copy
    clips["content"] = clips["class"] + shown
    values = pd.factorize(clips["content"])[0]
    duplicates = find_duplicates(clips, np.array([[value * 40.0] * 4 for value in values]))
    kept, dropped = (make_splits(some, protocol="by_performer", folds=5)
                     for some in (clips, drop_duplicates(clips, duplicates)))
    assert set(kept["clip"]) - set(dropped["clip"]) == {f"{label}/5" for label in CLASSES}
    facts = ["clip", "class", "recording", "scene"]
    assert set(dropped[facts].itertuples(index=False)) < set(kept[facts].itertuples(index=False))
    tested = kept[(kept["subset"] == "testing") & (kept["recording"] == "005")]
    original = kept[(kept["fold"] == tested["fold"].iloc[0]) & (kept["recording"] == "001")]
    assert set(original["subset"]) <= {"training", "validation"}


def test_without_duplicates_every_clip_is_kept(index):
    none = find_duplicates(index, np.arange(len(index))[:, None] * np.full((1, 4), 50.0))
    assert none.empty and list(none.columns[:3]) == ["clip", "other", "kind"]
    pd.testing.assert_frame_equal(drop_duplicates(index, none), index)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "training", "validation", "testing"])),
                min_size=1, max_size=15))
def test_each_set_keeps_its_test_clip_before_others(drawn):
    clips = make_clips([(f"c{number:02d}", "step_1", f"{number:03d}", "G01", given)
                        for number, (_, given) in enumerate(drawn)])
    content = np.array([[value * 40.0] * 4 for value, _ in drawn])
    clips["content"] = [str(value) for value, _ in drawn]
    kept = drop_duplicates(clips, find_duplicates(clips, content))
    assert sorted(kept["content"]) == sorted(clips["content"].unique())  # exactly one of each set
    order = {"testing": 0, "validation": 1, "training": 2, "": 2}
    best = clips.assign(rank=clips["given_split"].map(order)).groupby("content")["rank"].min()
    for row in kept.itertuples():
        assert order[row.given_split] == best[row.content]


@given(catalogues(recordings=(4, 7)), st.data())
def test_after_dropping_no_duplicates_cross_a_split(clips, data):
    values = data.draw(st.lists(st.integers(0, 30), min_size=len(clips), max_size=len(clips)))
    signatures = np.array([[value * 40.0] * 4 for value in values])
    duplicates = find_duplicates(clips, signatures)
    kept = drop_duplicates(clips, duplicates)
    assume(len(kept) >= 3 and kept["recording"].nunique() >= 3)
    splits = make_splits(kept, protocol="by_performer", folds=3)
    used = set(splits["clip"])
    assert not [pair for pair in duplicates.itertuples() if pair.clip in used and pair.other in used]


@pytest.fixture(scope="module")
def real_frames(real_clips, tmp_path_factory):
    output = tmp_path_factory.mktemp("real")
    index = extract_frames(real_clips, output, HANDWASH_CLASSES, sizes=[64], length=32, stride=4, processes=2)
    return index, np.stack([sign(load_frames(output, clip, 64)) for clip in index["clip"]])


def test_the_real_clips_hold_62_distinct_ones(real_frames):
    index, signatures = real_frames
    assert (index["status"] == "ok").all() and len(index) == 69
    assert len(drop_duplicates(index, find_duplicates(index, signatures))) == 62


def test_a_real_clip_is_found_in_its_original_size(real_frames, tmp_path):
    originals = sorted((SHARED / "clips" / "originals").glob("*.mp4"))
    if not originals:
        pytest.skip("no originals beside the real clips")
    index, signatures = real_frames
    (tmp_path / "clips" / "Step_3").mkdir(parents=True)
    for path in originals:
        (tmp_path / "clips" / "Step_3" / path.name).symlink_to(path)
    large = extract_frames(tmp_path / "clips", tmp_path / "frames", HANDWASH_CLASSES, sizes=[64], length=32, stride=4,
                           processes=1)
    both = pd.concat([index, large.assign(clip="original/" + large["recording"])], ignore_index=True)
    large_signatures = [sign(load_frames(tmp_path / "frames", clip, 64)) for clip in large["clip"]]
    duplicates = find_duplicates(both, np.vstack([signatures, large_signatures]))
    for name, recording in zip(large["path"], large["recording"], strict=True):
        found = duplicates[duplicates["other"] == f"original/{recording}"]["clip"]
        assert any(clip.endswith(name.split("/")[1].removesuffix(".mp4")) for clip in found)
