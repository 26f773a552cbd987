"""The store of frames: archives of pictures, whoever made them."""

import hashlib
import io
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tell_numbers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from health_actions.data.frames import Clip, decode_jpeg, make_unique, name_folders, open_clip


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
    with pytest.raises(ValueError, match="^[^\n]*leads out of[^\n]*$"):
        open_clip(tmp_path, name)


def test_folders_have_the_last_part_of_a_name_unless_two_share_it():
    clips = pd.DataFrame({"clip": ["a/one", "b/one", "b/two"]})
    assert name_folders(clips) == {"a/one": "a_one", "b/one": "b_one", "b/two": "two"}


def test_names_of_folders_that_would_still_be_equal_have_a_hash():
    names = name_folders(pd.DataFrame({"clip": ["fall/01", "adl/01", "fall/adl_01", "fall/c"]}))
    hashes = {clip: hashlib.sha256(clip.encode()).hexdigest()[:8] for clip in names}
    assert names == {"fall/01": "fall_01", "adl/01": f"adl_01-{hashes['adl/01']}",
                     "fall/adl_01": f"adl_01-{hashes['fall/adl_01']}", "fall/c": "c"}


@given(st.lists(st.tuples(st.sampled_from(["fall", "Fall", "adl", "fall/adl"]),
                          st.text("aAäÄ_1ß", min_size=1, max_size=3) | st.sampled_from(["ü", "u\u0308", "x" * 252])),
                min_size=1, unique=True))
def test_names_are_unique_whatever_the_disk_and_fit_it(parts):
    clips = pd.Series(["/".join(each) for each in parts])
    for names in (make_unique(clips, clips), pd.Series(name_folders(clips.to_frame("clip")))):
        assert len({unicodedata.normalize("NFC", name.casefold()) for name in names}) == len(clips)
        assert all(len(part.encode()) <= 251 for name in names for part in name.split("/"))
