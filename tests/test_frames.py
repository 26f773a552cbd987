"""The store of frames: archives of pictures, whoever made them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import list_files, tell_numbers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from health_actions.data.frames import Clip, decode_jpeg, name_folders, open_clip, read_index, unpack_clips


def encode_picture(number: int) -> bytes:
    """A grey JPEG picture of 24 x 16 pixels that tells its number, see `tell_numbers`."""
    file = io.BytesIO()
    Image.new("RGB", (24, 16), (10 + 5 * number,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_archive(file: Path, *, count=12, kind=zipfile.ZIP_STORED, comment=b'{"height": 16}', **changes) -> Path:
    """An archive of frames, with other content under some names."""
    content = {f"image_{number:05d}.jpg": encode_picture(number - 1) for number in range(1, count + 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in (content | {"n_frames": str(count).encode()} | changes).items():
            archive.writestr(name, data)
        archive.comment = comment
    return file


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return Clip(write_archive(tmp_path_factory.mktemp("frames") / "a.zip"))


@given(st.one_of(st.lists(st.integers(0, 11), min_size=1), st.slices(12).filter(lambda part: range(12)[part])))
def test_a_clip_is_indexed_like_an_array(clip, numbers):
    frames = clip[numbers]
    assert frames.shape[1:] == (16, 24, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(tell_numbers(frames), np.arange(12)[numbers])


def test_a_clip_holds_its_pictures_and_settings(clip):
    assert len(clip) == 12 and clip.nbytes == sum(len(picture) for picture in clip.pictures)
    assert clip.pictures[3] == encode_picture(3) and clip.settings == {"height": 16}
    np.testing.assert_array_equal(clip[np.array([3])][0], decode_jpeg(clip.pictures[3]))


def test_a_missing_clip_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="no frames at .*a.zip: extract them first"):
        open_clip(tmp_path, "a")


@pytest.mark.parametrize("changes", [
    {"n_frames": b"1000000000"}, {"n_frames": b"-3"}, {"n_frames": b"0"}, {"n_frames": b"13"}, {"n_frames": b"many"},
    {"n_frames": b"9" * 5000}, {"n_frames": b""}, {"comment": b"no JSON"},
    {"kind": zipfile.ZIP_DEFLATED, "image_00001.jpg": bytes(10_000_000)}])  # a bomb
def test_an_archive_of_other_content_is_refused(tmp_path, changes):
    file = write_archive(tmp_path / "a.zip", **changes)
    with pytest.raises(ValueError, match="a.zip is no archive of frames .*; delete it and run make repro$"):
        Clip(file)


@pytest.mark.parametrize("side", [4000, 30_000])
def test_a_picture_that_claims_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, side):
    content = bytearray(encode_picture(0))
    place = content.index(b"\xff\xc0") + 5
    content[place:place + 4] = np.array([side, side], ">u2").tobytes()
    clip = Clip(write_archive(tmp_path / "a.zip", **{"image_00001.jpg": bytes(content)}))
    assert len(clip[1:3]) == 2
    with pytest.raises(ValueError, match="picture 1 is damaged") as caught:
        clip[:1]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/secret", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    rows = pd.DataFrame({"clip": [name], "class": ["step_1"], "status": ["ok"], "reason": [""]})
    for read in (lambda: open_clip(tmp_path, name), lambda: unpack_clips(tmp_path, rows, tmp_path / "out")):
        with pytest.raises(ValueError, match="leads out of") as caught:
            read()
        assert "\n" not in str(caught.value)


# ---- Folders of pictures


def make_rows(*clips) -> pd.DataFrame:
    return pd.DataFrame({"clip": clips, "class": "headache", "status": "ok"})


def test_clips_and_no_other_files_are_unpacked_under_the_names_of_the_published_code(tmp_path):
    rows = make_rows("x/one", "two", "three")
    rows.loc[2, "status"] = "left out"
    foreign = {"../../evil.txt": b"x", f"{tmp_path}/evil.txt": b"x", "index.html": b"x"}
    for name in ("x/one", "two"):
        write_archive(tmp_path / "frames" / f"{name}.zip", count=2, **foreign)
    assert unpack_clips(tmp_path / "frames", rows, tmp_path / "out") == 2
    names = ["image_00001.jpg", "image_00002.jpg", "n_frames"]
    assert list_files(tmp_path)[2:] == [f"out/headache/{clip}/{name}" for clip in ("one", "two") for name in names]
    assert (tmp_path / "out" / "headache" / "one" / "n_frames").read_text() == "2"
    assert (tmp_path / "out" / "headache" / "two" / "image_00002.jpg").read_bytes() == encode_picture(1)


def test_unpacking_keeps_what_is_complete_and_completes_the_rest(tmp_path):
    write_archive(tmp_path / "one.zip", count=2)
    unpack_clips(tmp_path, make_rows("one"), tmp_path / "out")
    folder = tmp_path / "out" / "headache" / "one"
    (folder / "image_00001.jpg").unlink()
    unpack_clips(tmp_path, make_rows("one"), tmp_path / "out")
    assert not (folder / "image_00001.jpg").exists()
    (folder / "n_frames").unlink()  # it is written last
    unpack_clips(tmp_path, make_rows("one"), tmp_path / "out")
    assert (folder / "image_00001.jpg").exists() and (folder / "n_frames").exists()


def test_folders_have_the_last_part_of_a_name_unless_two_share_it():
    assert name_folders(make_rows("a/one", "b/one", "b/two")) == {"a/one": "a_one", "b/one": "b_one", "b/two": "two"}


def test_an_index_is_read_with_its_texts(tmp_path):
    pd.DataFrame({"clip": ["1"], "recording": ["001"], "reason": [""], "frames": [3]}).to_csv(tmp_path / "index.csv")
    row = read_index(tmp_path).iloc[0]
    assert (row["clip"], row["recording"], row["reason"], row["frames"]) == ("1", "001", "", 3)
