import errno
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, draw_numbers, draw_square, list_files, tell_numbers, write_video
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from health_actions.data import extraction
from health_actions.data.clips import NoClips
from health_actions.data.extraction import extract_archives, extract_frames, sample_indices, unpack_archives
from health_actions.data.frames import ClipArchive, list_sizes, load_frames, open_clip, read_index
from health_actions.data.video import UnreadableVideo
from health_actions.paths import DiskFull

CLIP = "Step_1/HandWash_001_A_01_G_01"


def extract(folder, output, **settings):
    return extract_frames(folder, output, CLASSES,
                          **{"sizes": [16], "length": 10, "stride": 4, "processes": 1, **settings})


@pytest.fixture
def folder(tmp_path):
    """Two good clips."""
    write_video(tmp_path / "clips" / f"{CLIP}.mp4", draw_numbers(), crf=8)
    write_video(tmp_path / "clips" / "Step_2_Left" / "b.mp4", draw_square())
    return tmp_path / "clips"


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 400))
def test_indices_are_evenly_spread_within_the_clip(length, stride, more):
    frames = length + more
    indices = sample_indices(frames, length=length, stride=stride)
    assert len(indices) == length and indices[0] == 0 and indices[-1] < frames
    steps = set(np.diff(indices).tolist())
    assert len(steps) == (length > 1)
    for step in steps:
        assert 1 <= step <= stride
        assert step == stride or (step + 1) * (length - 1) >= frames  # a larger step would leave the clip


@pytest.mark.parametrize(("frames", "step"), [(1000, 4), (125, 4), (124, 3), (94, 3), (93, 2), (63, 2), (62, 1),
                                               (32, 1)])
def test_every_fourth_frame_is_taken_and_fewer_are_skipped_in_short_clips(frames, step):
    assert sample_indices(frames, length=32, stride=4).tolist() == list(range(0, 32 * step, step))


def test_a_clip_that_is_too_short_is_unreadable():
    with pytest.raises(UnreadableVideo, match="too short: 31 frames, at least 32"):
        sample_indices(31, length=32, stride=4)


def test_the_sampled_frames_are_kept_at_each_size(folder, tmp_path):
    index = extract(folder, tmp_path / "frames", sizes=[16, 24]).set_index("clip")
    for size in (16, 24):
        frames = load_frames(tmp_path / "frames", CLIP, size)
        assert frames.shape == (10, size, size, 3) and frames.dtype == np.uint8
        assert tell_numbers(frames) == list(range(0, 40, 4))
    assert list_sizes(tmp_path / "frames") == [16, 24]
    assert index.loc[CLIP, ["frames", "fps", "width", "height", "status"]].tolist() == [40, 30.0, 96, 64, "ok"]
    assert index.loc[CLIP, "duration"] == pytest.approx(1.333)


def test_damaged_clips_are_listed_with_their_reasons_and_left_out(folder, tmp_path):
    content = (folder / f"{CLIP}.mp4").read_bytes()
    (folder / "Step_1" / "cut.mp4").write_bytes(content[:len(content) // 2])
    (folder / "Step_1" / "empty.mp4").touch()
    (folder / "Step_1" / "notes.txt").write_text("text")
    write_video(folder / "Step_1" / "short.mp4", draw_square(frames=9))
    write_video(folder / "Step_9" / "other.mp4", draw_square())
    index = extract(folder, tmp_path / "frames").set_index("clip")
    left_out = index[index["status"] == "left out"]["reason"]
    assert sorted(left_out.index) == ["Step_1/cut", "Step_1/empty", "Step_1/notes", "Step_1/short", "Step_9/other"]
    for name, words in {"Step_1/cut": "header", "Step_1/empty": "empty file", "Step_1/notes": "no video by its name",
                        "Step_1/short": "too short: 9 frames", "Step_9/other": "unknown class"}.items():
        assert words in left_out[name] and "\n" not in left_out[name]
    assert list_files(tmp_path / "frames") == [f"{CLIP}.npz", "Step_2_Left/b.npz", "index.csv"]


def test_the_index_is_read_as_it_was_written(folder, tmp_path):
    (folder / "Step_1" / "empty.mp4").touch()
    index = extract(folder, tmp_path / "frames")
    assert read_index(tmp_path / "frames").to_dict("records") == index.to_dict("records")
    assert index.loc[0, "recording"] == "001"


def test_a_second_run_decodes_only_what_changed(folder, tmp_path):
    extract(folder, tmp_path / "frames")
    files = [tmp_path / "frames" / f"{clip}.npz" for clip in (CLIP, "Step_2_Left/b")]
    before = [file.stat().st_mtime_ns for file in files]
    first = (tmp_path / "frames" / "index.csv").read_bytes()
    extract(folder, tmp_path / "frames")
    assert [file.stat().st_mtime_ns for file in files] == before
    assert (tmp_path / "frames" / "index.csv").read_bytes() == first
    write_video(folder / "Step_2_Left" / "b.mp4", draw_square(background=120))
    extract(folder, tmp_path / "frames")
    assert files[0].stat().st_mtime_ns == before[0] and files[1].stat().st_mtime_ns > before[1]
    assert load_frames(tmp_path / "frames", "Step_2_Left/b", 16).min() > 90


@pytest.mark.parametrize("changed", [{"stride": 2}, {"length": 8}, {"sizes": [16, 24]}])
def test_other_settings_decode_every_clip_again(folder, tmp_path, changed):
    extract(folder, tmp_path / "frames")
    before = (tmp_path / "frames" / f"{CLIP}.npz").stat().st_mtime_ns
    extract(folder, tmp_path / "frames", **changed)
    assert (tmp_path / "frames" / f"{CLIP}.npz").stat().st_mtime_ns > before


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_a_damaged_file_of_an_earlier_run_is_made_again(folder, tmp_path, keep):
    extract(folder, tmp_path / "frames")
    file = tmp_path / "frames" / f"{CLIP}.npz"
    content = file.read_bytes()
    file.write_bytes(content[:keep if isinstance(keep, int) else int(keep * len(content))])
    extract(folder, tmp_path / "frames")
    assert tell_numbers(load_frames(tmp_path / "frames", CLIP, 16)) == list(range(0, 40, 4))


def test_files_of_removed_clips_and_of_killed_runs_disappear(folder, tmp_path):
    extract(folder, tmp_path / "frames")
    (tmp_path / "frames" / "Step_1" / ".HandWash_001_A_01_G_01.77.part.npz").write_bytes(b"half")
    shutil.rmtree(folder / "Step_2_Left")
    extract(folder, tmp_path / "frames")
    assert list_files(tmp_path / "frames") == [f"{CLIP}.npz", "index.csv"]
    assert not (tmp_path / "frames" / "Step_2_Left").exists()


def test_a_clip_that_became_unreadable_leaves_no_old_frames(folder, tmp_path):
    extract(folder, tmp_path / "frames")
    (folder / "Step_2_Left" / "b.mp4").write_bytes(b"")
    extract(folder, tmp_path / "frames")
    assert list_files(tmp_path / "frames") == [f"{CLIP}.npz", "index.csv"]


def test_nothing_usable_raises_with_the_reasons(tmp_path):
    (tmp_path / "clips" / "Step_1").mkdir(parents=True)
    (tmp_path / "clips" / "Step_1" / "a.mp4").touch()
    with pytest.raises(NoClips, match=r"none of the 1 files in clips can be used:\n  Step_1/a.mp4: empty file"):
        extract(tmp_path / "clips", tmp_path / "frames")


def test_a_size_that_was_not_extracted_is_told_with_those_that_were(frames_folder, index):
    with pytest.raises(ValueError, match="was extracted at 32 pixels, not at 48: add 48 to frames.sizes"):
        load_frames(frames_folder, index["clip"][0], 48)


def test_two_processes_give_the_same_index(folder, tmp_path):
    one, two = extract(folder, tmp_path / "one"), extract(folder, tmp_path / "two", processes=2)
    assert one.to_dict("records") == two.to_dict("records")


# ---- What happens meanwhile


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(file.read_bytes() + b"more"), os.utime, os.remove],
                         ids=["longer", "touched", "gone"])
def test_a_clip_that_changes_while_it_is_read_is_left_out(folder, tmp_path, monkeypatch, change):
    def read(path, *arguments):
        frames = extraction_read(path, *arguments)
        if path.stem == "b":
            change(path)
        return frames

    extraction_read = extraction.read_frames
    monkeypatch.setattr(extraction, "read_frames", read)
    index = extract(folder, tmp_path / "frames").set_index("clip")
    assert index["reason"].to_dict() == {CLIP: "", "Step_2_Left/b": "changed while it was read; run again"}
    assert list_files(tmp_path / "frames") == [f"{CLIP}.npz", "index.csv"]


def test_a_clip_that_cannot_be_read_any_more_is_left_out(folder, tmp_path, monkeypatch):
    def fail(path, *arguments):
        if path.stem == "b":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return path_open(path, *arguments)

    path_open = Path.open
    monkeypatch.setattr(Path, "open", fail)
    index = extract(folder, tmp_path / "frames").set_index("clip")
    assert index.loc["Step_2_Left/b", "reason"] == "cannot be read: input/output error"


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk quota is"),
                                               (errno.EFBIG, "the file is larger than")])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(folder, tmp_path, monkeypatch, number, words):
    def fill(archive, name, mode="r", **options):
        if mode == "w":
            archive.fp.write(b"half")
            raise OSError(number, os.strerror(number))
        return archive_open(archive, name, mode, **options)

    archive_open = zipfile.ZipFile.open
    with monkeypatch.context() as patch, pytest.raises(DiskFull) as caught:
        patch.setattr(zipfile.ZipFile, "open", fill)
        extract(folder, tmp_path / "frames")
    assert "\n" not in str(caught.value)
    for part in (f"could not write {tmp_path / 'frames' / CLIP}.npz: {words}", "MB are free there", "the same command"):
        assert part in str(caught.value)
    assert list_files(tmp_path / "frames") == []
    assert set(extract(folder, tmp_path / "frames")["status"]) == {"ok"}


@pytest.mark.parametrize("kind", ["frames", "archives"])
def test_a_full_disk_is_told_by_processes_as_well(folder, tmp_path, kind):
    """A limit on the size of files, which the processes inherit, stands for the full disk."""
    options = {"frames": "sizes=[64], length=10, stride=4", "archives": "height=64, naming='handwash'"}[kind]
    code = (f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))\n"
            f"from health_actions.data.extraction import extract_{kind} as extract\n"
            f"extract({str(folder)!r}, {str(tmp_path / 'out')!r}, {CLASSES}, processes=2, {options})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DiskFull: could not write" in done.stderr.splitlines()[-1] and "is larger than" in done.stderr
    assert list_files(tmp_path / "out") == []


# ---- Files of frames that somebody else made


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/secret", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    rows = pd.DataFrame({"clip": [name], "class": ["step_1"], "status": ["ok"], "reason": [""]})
    (tmp_path / "frames").mkdir()
    rows.to_csv(tmp_path / "frames" / "index.csv", index=False)
    for read in (lambda: load_frames(tmp_path / "frames", name, 16), lambda: open_clip(tmp_path / "frames", name),
                 lambda: list_sizes(tmp_path / "frames"),
                 lambda: unpack_archives(tmp_path / "frames", rows, tmp_path / "out")):
        with pytest.raises(ValueError, match="leads out of") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.fixture
def archive(folder, tmp_path) -> Path:
    extract_archives(folder, tmp_path / "archives", CLASSES, height=32, naming="handwash", processes=1)
    return tmp_path / "archives" / f"{CLIP}.zip"


def rewrite(archive, *, kind=zipfile.ZIP_STORED, **changes) -> ClipArchive:
    """The archive with other content under some names; without its suffix, a name stands for that of a picture."""
    with zipfile.ZipFile(archive) as old:
        content = {name: old.read(name) for name in old.namelist()} | changes
    with zipfile.ZipFile(archive, "w", kind) as new:
        for name, data in content.items():
            new.writestr(name, data)
    return ClipArchive(archive)


@pytest.mark.parametrize("count", [b"1000000000", b"-3", b"0", b"41", b"many", b"9" * 5000, b""])
def test_an_archive_that_claims_another_number_of_pictures_is_refused(archive, count):
    with pytest.raises(ValueError, match="is no archive of frames .*; delete it and run make repro$"):
        rewrite(archive, n_frames=count)


def test_a_compressed_archive_is_refused_since_it_may_be_a_bomb(archive):
    with pytest.raises(ValueError, match="is no archive of frames .it is compressed."):
        rewrite(archive, kind=zipfile.ZIP_DEFLATED, **{"image_00001.jpg": bytes(10_000_000)})


@pytest.mark.parametrize("side", [4000, 30_000])
def test_a_picture_that_claims_too_many_pixels_is_refused_before_it_is_decoded(archive, side):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    content = bytearray(picture.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place:place + 4] = np.array([side, side], ">u2").tobytes()
    opened = rewrite(archive, **{"image_00001.jpg": bytes(content)})
    assert opened[1:3].shape[0] == 2
    with pytest.raises(ValueError, match="picture 1 is damaged") as caught:
        opened[:1]
    assert "\n" not in str(caught.value)


def test_unpacking_gives_files_their_own_names_alone(archive, tmp_path):
    rewrite(archive, **{"../../evil.txt": b"x", f"{tmp_path}/evil.txt": b"x", "index.html": b"x"})
    index = read_index(tmp_path / "archives")
    before = {path for path in list_files(tmp_path)}
    assert unpack_archives(tmp_path / "archives", index, tmp_path / "out") == 2
    made = set(list_files(tmp_path)) - before
    assert all(path.startswith("out/step_") for path in made)
    names = {path.rpartition("/")[2] for path in made}
    assert names == {f"image_{number:05d}.jpg" for number in range(1, 41)} | {"n_frames"}


@pytest.mark.parametrize("content", [b"", b"no file of frames", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."])
def test_a_file_that_holds_no_frames_is_told_in_one_line(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="a.npz holds no frames .*; delete it and run make repro$"):
        load_frames(tmp_path, "a", 16)
    with pytest.raises(FileNotFoundError, match="no frames at .*b.npz: extract them first"):
        load_frames(tmp_path, "b", 16)
