import itertools

import pandas as pd
import pytest
from conftest import CLASSES, HANDWASH_CLASSES, make_clips
from hypothesis import assume, given
from hypothesis import strategies as st

from health_actions.data.annotations import audit_splits
from health_actions.data.splits import make_splits, try_splits

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
    """Every clip is in each fold once and tested in one of them, and no subset is empty."""
    for _, part in splits.groupby("fold"):
        assert sorted(part["clip"]) == sorted(clips["clip"])
        assert set(part["subset"]) == SUBSETS
    assert sorted(splits.loc[splits["subset"] == "testing", "clip"]) == sorted(clips["clip"])


def check_apart(splits, column, subsets=("testing",)):
    """The values of a column in `subsets` are in no other subset of the fold."""
    for _, part in splits.groupby("fold"):
        for subset in subsets:
            inside = part["subset"] == subset
            assert not set(part.loc[inside, column]) & set(part.loc[~inside, column])


@given(catalogues(scenes=(3, 4), recordings=(4, 7)), st.sampled_from([("by_performer", "recording", SUBSETS),
                                                                      ("by_scene", "scene", ["testing"])]),
       st.integers(3, 6), st.integers(0, 5))
def test_no_recording_or_scene_is_in_two_subsets_of_its_split(clips, split, folds, seed):
    protocol, column, apart = split
    assume(clips["class"].value_counts().max() >= 3)  # else there are two parts at most
    splits = make_splits(clips, protocol=protocol, folds=folds, seed=seed)
    check_whole(splits, clips)
    check_apart(splits, column, apart)


@given(catalogues(recordings=(4, 7)), st.integers(0, 5))
def test_two_scenes_are_enough_for_a_split_by_scene(clips, seed):
    clips["scene"] = "G0" + (clips["recording"].astype(int) % 2).astype(str)
    splits = make_splits(clips, protocol="by_scene", folds=5, seed=seed)
    assert splits["fold"].nunique() == 2
    check_whole(splits, clips)
    check_apart(splits, "scene")
    check_apart(splits, "recording", SUBSETS)


@given(catalogues(recordings=(3, 7)), st.integers(3, 6), st.integers(0, 5))
def test_a_stratified_split_tests_every_clip_once_and_spreads_the_classes(clips, folds, seed):
    counts = clips["class"].value_counts()
    assume(counts.max() >= 3)
    splits = make_splits(clips, protocol="stratified", folds=folds, seed=seed)
    check_whole(splits, clips)
    spread = splits[splits["subset"] == "testing"].groupby(["class", "fold"]).size().unstack(fill_value=0)
    assert (spread.max(axis=1) - spread.min(axis=1)).max() <= 1


# Shares of one split, as study A's.


def make_labelled(sizes) -> pd.DataFrame:
    """So many clips of each class."""
    labels = [label for label, size in zip(HANDWASH_CLASSES, sizes) for _ in range(size)]
    return make_clips([(f"c{number}", label, f"{number:03d}", "G01") for number, label in enumerate(labels)])


def test_711_clips_are_split_into_the_numbers_of_the_paper_with_five_or_six_of_each_class_in_the_test():
    clips = make_labelled([59] * 9 + [60] * 3)
    splits = make_splits(clips, protocol="stratified", folds=10, shares=[573, 77, 61])
    assert splits["subset"].value_counts().to_dict() == {"training": 573, "validation": 77, "testing": 61}
    assert sorted(splits[splits["subset"] == "testing"]["class"].value_counts()) == [5] * 11 + [6]  # as in Figure 6
    other = make_splits(clips, protocol="stratified", folds=10, shares=[573, 77, 61], seed=1)
    assert not other.equals(splits) and list(other["clip"]) == list(splits["clip"]) == list(clips["clip"])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.lists(st.integers(1, 9), min_size=3, max_size=3),
       st.sampled_from(["stratified", "published"]), st.integers(0, 5))
def test_other_numbers_of_clips_are_split_in_the_same_shares_with_the_classes_spread(sizes, shares, protocol, seed):
    clips = make_labelled(sizes)
    wanted = {subset: max(1, round(len(clips) * share / sum(shares)))
              for subset, share in zip(["validation", "testing"], shares[1:])}
    assume(len(clips) > max(2, sum(wanted.values())))
    splits = make_splits(clips, protocol=protocol, folds=3, shares=shares, seed=seed)
    assert splits["fold"].eq(1).all() and list(splits["clip"]) == list(clips["clip"])
    assert splits["subset"].value_counts().to_dict() == wanted | {"training": len(clips) - sum(wanted.values())}
    tested = pd.crosstab(splits["class"], splits["subset"])["testing"]
    even = splits["class"].value_counts() * wanted["testing"] / len(clips)
    assert ((tested - even).abs() <= 1).all()


def test_shares_are_of_random_splits_alone_and_leave_clips_to_train_on(index):
    grouped = make_splits(index, protocol="by_performer", folds=3, shares=[8, 1, 1])
    pd.testing.assert_frame_equal(grouped, make_splits(index, protocol="by_performer", folds=3))
    given = make_splits(index.assign(given_split=["training", "validation", "testing"] * 4), protocol="stratified",
                        folds=3, shares=[8, 1, 1])
    assert (given["subset"] == "testing").sum() == 4
    with pytest.raises(ValueError, match=r"the shares \[1, 9, 9\] leave none of 12 clips to train on"):
        make_splits(index, protocol="stratified", folds=3, shares=[1, 9, 9])


def test_the_first_fold_alone_is_the_first_of_every_fold(index):
    every = make_splits(index, protocol="by_performer", folds=3)
    first = make_splits(index, protocol="by_performer", folds=3, test_on="first_fold")
    pd.testing.assert_frame_equal(first, every[every["fold"] == 1].reset_index(drop=True))


def test_a_split_that_folders_give_is_used():
    given_split = ["training", "training", "validation", "testing", "testing"]
    clips = make_clips([(f"c{number}", "step_1", "001", "G01", given) for number, given in enumerate(given_split)])
    splits = make_splits(clips, protocol="by_performer", folds=3)
    assert list(splits["subset"]) == given_split and set(splits["fold"]) == {1}


def test_training_clips_validate_where_no_folder_does():
    clips = make_clips([*((f"c{number}", CLASSES[number % 2], f"{number // 2:03d}", "G01", "training")
                          for number in range(10)), ("t", "step_1", "009", "G01", "testing")])
    splits = make_splits(clips, protocol="stratified", folds=3)
    assert set(splits["subset"]) == SUBSETS and list(splits.loc[splits["subset"] == "testing", "clip"]) == ["t"]
    check_apart(splits, "recording", SUBSETS)


@pytest.mark.parametrize("given_split", [["testing"] * 4, ["validation"] * 4, ["training"] * 4,
                                         ["training", "training", "validation", "validation"],
                                         ["validation", "validation", "testing", "testing"],
                                         ["training", "testing", "testing", "testing"]])
def test_folders_that_leave_a_subset_empty_are_an_error(given_split):
    clips = make_clips([(f"c{number}", "step_1", f"{number:03d}", "G01", given)
                        for number, given in enumerate(given_split)])
    with pytest.raises(ValueError, match="train|test"):
        make_splits(clips, protocol="stratified", folds=3)


@pytest.mark.parametrize(("settings", "words"), [
    ({"protocol": "by_person"}, "unknown protocol 'by_person'; known: stratified, by_performer, by_scene"),
    ({"test_on": "last"}, "every_fold or first_fold"), ({"folds": 2}, "at least 3 folds .*found 2 folds")])
def test_unknown_settings_are_an_error(index, settings, words):
    with pytest.raises(ValueError, match=words):
        make_splits(index, **{"protocol": "stratified", "folds": 3, **settings})


@given(catalogues())
def test_clips_that_cannot_be_split_are_refused_with_one_line(clips):
    for protocol in ("stratified", "by_performer", "by_scene"):
        try:
            splits = make_splits(clips, protocol=protocol, folds=4)
        except ValueError as error:
            assert "\n" not in str(error) and ("clips" in str(error) or "class" in str(error))
        else:
            check_whole(splits, clips)


def test_each_protocol_is_tried_with_each_seed_or_skipped_with_its_reason(index):
    clips, protocols = index.assign(scene="G01"), ["stratified", "by_scene", "by_performer"]
    splits, skipped = try_splits(clips, protocols=protocols, seeds=[0, 3], folds=3)
    assert list(splits) == list(itertools.product(protocols[::2], [0, 3])) and list(skipped) == ["by_scene"]
    assert "a split by scene needs at least two of them; all 12 clips are of scene 'G01'" in skipped["by_scene"]
    for (protocol, seed), table in splits.items():
        pd.testing.assert_frame_equal(table, make_splits(clips, protocol=protocol, folds=3, seed=seed))


@pytest.fixture(scope="module")
def catalogue() -> pd.DataFrame:
    """NTU clips: 12 performers x 2 actions in 4 setups, every movement filmed by three cameras."""
    rows = [(f"S{setup:03d}C{camera:03d}P{performer:03d}R001A{action:03d}", name, f"P{performer:03d}", f"C{camera:03d}",
             f"S{setup:03d}P{performer:03d}R001A{action:03d}")
            for performer in range(1, 13) for setup in [1 + performer % 4]
            for action, name in ((43, "falling_down"), (44, "headache")) for camera in (1, 2, 3)]
    clips = pd.DataFrame(rows, columns=["clip", "class", "recording", "scene", "take"])
    return clips.assign(given_split="", content=clips["clip"])


@pytest.mark.parametrize(("protocol", "column", "trained", "tested"), [
    ("cross_subject", "recording", "P001 P002 P004 P005 P008 P009", "P003 P006 P007 P010 P011 P012"),
    ("cross_view", "scene", "C002 C003", "C001"), ("cross_setup", "setup", "S002 S004", "S001 S003")])
def test_the_protocols_of_ntu_keep_performers_cameras_or_setups_apart(catalogue, protocol, column, trained, tested):
    splits = make_splits(catalogue, protocol=protocol, folds=4)
    values = splits.assign(setup=splits["clip"].str[:4])[column]
    assert splits["fold"].unique().tolist() == [1] and len(splits) == len(catalogue)
    assert set(values[splits["subset"] != "testing"]) == set(trained.split())
    assert set(values[splits["subset"] == "testing"]) == set(tested.split())
    validation, training = (set(splits.loc[splits["subset"] == subset, "recording"])
                            for subset in ("validation", "training"))
    assert validation and not validation & training, "validation performers do not train"


def test_the_published_split_shares_performers_cameras_and_takes_and_the_audit_says_so(catalogue):
    rows = {}
    for protocol in ("published", "cross_subject", "cross_view"):
        splits = make_splits(catalogue, protocol=protocol, folds=4, test_on="first_fold")
        rows[protocol] = audit_splits(splits, pd.DataFrame(columns=["clip", "other"]), ["falling_down"]).iloc[0]
    assert min(rows["published"][["shared_recordings", "shared_scenes", "shared_takes"]]) > 0
    assert rows["cross_subject"]["shared_recordings"] == rows["cross_subject"]["shared_takes"] == 0
    assert rows["cross_view"]["shared_scenes"] == 0 and rows["cross_view"]["shared_takes"] > 0


def test_of_ntus_120_actions_53_of_106_performers_train_and_up_to_40_the_same_as_of_60():
    rows = [(f"S018C001P{number:03d}R001A{action:03d}", name, f"P{number:03d}", "C001")
            for number in range(1, 107) for action, name in ((61, "a061"), (120, "a120"))]
    splits = make_splits(make_clips(rows), protocol="cross_subject", folds=4)
    tested = set(splits.loc[splits["subset"] == "testing", "recording"].str[1:].astype(int))
    assert len(tested) == 53 and {41, 42, 43, 44, 48, 51, 60, 104, 105, 106} < tested
    assert set(range(1, 41)) - tested == {1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38}


def test_clips_all_on_one_side_of_a_protocol_of_ntu_are_an_error(catalogue):
    with pytest.raises(ValueError, match="cross_setup trains on S002(.|\n)*all on one side, a/1, a/2"):
        make_splits(make_clips([(f"a/{number}", "headache", f"{number}", "G01") for number in (1, 2, 3)]),
                    protocol="cross_setup", folds=4)
    with pytest.raises(ValueError, match="cross_subject trains on P001(.|\n)*all on one side, subject_1"):
        make_splits(catalogue.assign(recording="subject_1"), protocol="cross_subject", folds=4)
