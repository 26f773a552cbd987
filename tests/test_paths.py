
import pytest
from conftest import list_files

from health_actions.paths import at_root, atomic_write, find_root


def test_a_file_is_written_under_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".csv" and not path.exists()
    assert path.read_text() == "whole" and list_files(tmp_path) == ["new/table.csv"]


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
