import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, HANDWASH_CLASSES, draw_square, make_clips, write_video
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.clips import find_clips
from health_actions.data.duplicates import (
    compute_signature,
    compute_thumbnails,
    drop_duplicates,
    find_duplicates,
    find_overlaps,
)
from health_actions.data.extraction import extract_frames
from health_actions.data.frames import open_clip


def extract_signed(folder, output, classes, height):
    """The index of extracted clips, and their signatures."""
    index = extract_frames(folder, output, find_clips(folder, classes), height=height, length=10, stride=4, workers=1)
    return index, np.stack([compute_signature(open_clip(output, clip)) for clip in index["clip"]])


@given(st.integers(16, 60), st.integers(16, 90), st.integers(1, 40), st.integers(0, 9))
def test_a_signature_is_the_mean_grey_of_blocks(height, width, length, seed):
    frames = np.random.default_rng(seed).integers(0, 256, (length, height, width, 3), np.uint8)
    signature = compute_signature(frames)
    assert signature.shape == (8 * 16 * 16,) and signature.dtype == np.float32
    assert signature[0] == pytest.approx(frames[0, :height // 16, :width // 16].mean(), abs=0.01)
    assert compute_signature(np.full((length, height, width, 3), 77, np.uint8)) == pytest.approx(77)


def test_copies_are_found_and_different_clips_are_not(tmp_path):
    """Clips and duplicates of them: copied, encoded again, scaled."""
    folder = tmp_path / "clips"
    # A soft square: hard edges of small pictures change more by encoding than those of real ones.
    right, left = (np.stack([np.roll(frame, 3, 0) for frame in draw_square(step)]) for step in [(0, 2), (0, -2)])
    write_video(folder / "Step_1" / "a.mp4", right)
    (folder / "Step_2_Left").mkdir()
    (folder / "Step_2_Left" / "copy.mp4").write_bytes((folder / "Step_1" / "a.mp4").read_bytes())
    write_video(folder / "Step_1" / "encoded.mp4", right, crf=33)
    write_video(folder / "Step_1" / "scaled.mp4", right.repeat(2, axis=1).repeat(2, axis=2))
    write_video(folder / "Step_1" / "left.mp4", left)
    write_video(folder / "Step_1" / "brighter.mp4", draw_square(background=60))
    duplicates = find_duplicates(*extract_signed(folder, tmp_path / "frames", CLASSES, 32))
    same = ["Step_1/a", "Step_1/encoded", "Step_1/scaled", "Step_2_Left/copy"]
    assert set(zip(duplicates["clip"], duplicates["other"], strict=True)) == set(itertools.combinations(same, 2))
    identical = duplicates[duplicates["kind"] == "identical"]
    assert identical[["clip", "other", "difference", "same_class"]].values.tolist() == [
        ["Step_1/a", "Step_2_Left/copy", 0.0, False]]
    assert (duplicates["difference"] <= 2).all()


@st.composite
def draw_signatures(draw):
    """Signatures, some of them near each other, some exactly as far as the tolerance, and some equal."""
    count, length = draw(st.integers(1, 24)), draw(st.sampled_from([1, 3, 4, 70, 300]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    bases = random.integers(0, 256, (draw(st.integers(1, 4)), length))
    steps = random.integers(-draw(st.integers(0, 6)), 7, (count, length))
    return (bases[random.integers(0, len(bases), count)] + steps * random.integers(0, 2, (count, 1))).astype(np.float32)


@given(draw_signatures(), st.sampled_from([0.0, 1.0, 2.0, 3.5, 40.0]))
def test_exactly_the_pairs_within_the_tolerance_are_found(signatures, tolerance):
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


def test_memory_stays_flat_where_the_sums_of_all_clips_are_equal():
    random = np.random.default_rng(0)
    signatures = np.repeat(random.choice([0, 200], (500, 512)), 2, axis=1)
    signatures[:, 1::2] = 200 - signatures[:, ::2]  # every sum over neighbours is the same, no two clips are
    clips = make_clips([(f"c{number}", "step_1", f"{number}", "G01") for number in range(500)])
    tracemalloc.start()
    try:
        assert find_duplicates(clips, signatures).empty
        assert tracemalloc.get_traced_memory()[1] < 100e6  # all pairs at once: 1 GB
    finally:
        tracemalloc.stop()


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


@pytest.mark.slow
def test_the_real_clips_hold_62_distinct_ones(real_clips, tmp_path):
    index, signatures = extract_signed(real_clips, tmp_path, HANDWASH_CLASSES, 64)
    assert (index["status"] == "ok").all() and len(index) == 69
    assert len(drop_duplicates(index, find_duplicates(index, signatures))) == 62


@pytest.mark.parametrize("shift, length", [(0, 20), (7, 25), (20, 12)])
def test_parts_of_one_recording_are_found_at_any_shift(shift, length):
    random = np.random.default_rng(0)
    film = random.normal(size=(40, 96)).cumsum(axis=0)
    takes = [film[:30], film[shift:shift + length], random.normal(size=(30, 96)).cumsum(axis=0)]
    clips = pd.DataFrame({"clip": ["a", "b", "c"], "class": "x", "recording": ["1", "2", "3"]})
    table = find_overlaps(clips, takes)
    assert table[["clip", "other", "kind"]].values.tolist() == [["a", "b", "overlapping"]]
    assert table["difference"].tolist() == [0] and not table["same_recording"].any()
    assert find_overlaps(clips.assign(**{"class": ["x", "y", "z"]}), takes).empty, "other classes are other actions"
    assert find_overlaps(clips, [np.ones((30, 96), np.float32)] * 3).empty, "nothing moves"


def test_thumbnails_are_mean_greys():
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[1, :16] = 90, 120, 150
    thumbnails = compute_thumbnails(frames, (2, 2))
    assert thumbnails.tolist() == [[0, 0, 0, 0], [120, 120, 0, 0], [0, 0, 0, 0]]
