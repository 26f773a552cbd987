"""The quick part of benchmarks/damage.py: damaged, odd and hostile files end nothing and none gets lost."""

import importlib.util

import pytest
from conftest import ROOT
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def damage():
    spec = importlib.util.spec_from_file_location("damage", ROOT / "benchmarks" / "damage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_damaged_file_is_used_or_refused_with_a_reason(damage, tmp_path):
    table = damage.run_everything(tmp_path, count=40, seed=3)
    assert set(table["kind"]) == set(damage.KINDS) and len(table) == 3 * 40
    assert table.loc[table["lost"] != "", ["file", "kind", "by", "lost", "reason"]].to_dict("records") == []
    assert not table["reason"].str.contains("crashed|broke down|Traceback").any()
    assert 30e6 < table.attrs["memory"] < 2e9 and table["seconds"].max() < 20
    summary = damage.summarise(table)
    assert (summary["tried"] == summary["used"] + summary["refused"]).all()


def test_the_same_seed_makes_the_same_files(damage, tmp_path):
    first, second = (damage.write_files(tmp_path / name, 28, seed=5) for name in ("a", "b"))
    assert first == second
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in first)


def test_a_file_that_is_not_treated_as_it_must_be_is_counted_as_lost(damage, monkeypatch):
    monkeypatch.setattr(damage, "KINDS", {"whole": (damage.make_whole, True), "text": (damage.make_text, True),
                                          "again": (damage.make_whole, False)})
    done = CliRunner().invoke(make_app(damage), ["--count", "3"])
    assert done.exit_code == 1 and "lost: 6" in done.stdout, done.stdout


def make_app(damage):
    app = damage.typer.Typer()
    app.command()(damage.main)
    return app
