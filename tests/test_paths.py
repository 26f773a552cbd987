
import os

import pytest
from conftest import list_files

from health_actions.paths import at_root, atomic_write, find_root
from health_actions.paths import list_files as walk


def test_a_file_is_written_under_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".csv" and not path.exists()
    assert path.read_text() == "whole" and list_files(tmp_path) == ["new/table.csv"]


def test_a_name_may_be_as_long_as_a_disk_allows(tmp_path):
    first, second = (tmp_path / f"{'n' * 250}{number}.zip" for number in (1, 2))
    with atomic_write(first) as one, atomic_write(second) as other:
        one.write_text("first")
        other.write_text("second")
    assert (first.read_text(), second.read_text()) == ("first", "second")
    assert list_files(tmp_path) == [first.name, second.name]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_no_temporary_one(tmp_path, kind):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(kind), atomic_write(path) as temporary:
        temporary.write_text("half of the ne")
        raise kind("no space left")
    assert path.read_text() == "old" and list_files(tmp_path) == ["table.csv"]


def test_a_failed_write_names_the_file_that_was_meant(tmp_path):
    message = r"could not write .*table\.csv: No such file"
    with pytest.raises(OSError, match=message), atomic_write(tmp_path / "table.csv"):
        pass  # nothing was written, so there is nothing to rename


def test_the_root_is_found_from_any_folder_inside(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    inner = tmp_path / "notebooks" / "deep"
    inner.mkdir(parents=True)
    assert find_root(inner) == find_root(tmp_path) == tmp_path.resolve()
    monkeypatch.chdir(inner)
    assert at_root("data/x") == tmp_path.resolve() / "data" / "x"
    assert at_root(tmp_path / "data") == tmp_path / "data"


def test_files_are_listed_through_links_but_not_in_circles(tmp_path):
    for name in ("a/b/file", "a/.hidden", "a/.git/file", "other/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink("..", tmp_path / "a" / "b" / "circle")
    os.symlink("../other", tmp_path / "a" / "link")
    os.symlink("nowhere", tmp_path / "a" / "nothing")
    assert [(path.relative_to(tmp_path).as_posix(), place.relative_to(tmp_path.resolve()).as_posix())
            for path, place in walk(tmp_path / "a")] == [
        ("a/b/file", "a/b/file"), ("a/link/file", "other/file"), ("a/nothing", "a/nothing")]
