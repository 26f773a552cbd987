"""The quick part of benchmarks/damage.py: damaged, odd and hostile files end nothing and none gets lost."""

import damage
import pytest
import typer
from typer.testing import CliRunner


@pytest.mark.slow
def test_every_damaged_file_is_used_or_refused_with_a_reason(tmp_path):
    table = damage.run_everything(tmp_path, count=40, seed=3)
    assert set(table["kind"]) == set(damage.KINDS) and len(table) == 3 * 40
    assert table.loc[table["lost"] != "", ["file", "kind", "by", "lost", "reason"]].to_dict("records") == []
    assert not table["reason"].str.contains("crashed|Traceback").any()
    summary = damage.summarise(table)
    assert (summary["tried"] == summary["used"] + summary["refused"]).all()


@pytest.mark.slow
def test_a_file_that_is_not_treated_as_it_must_be_is_counted_as_lost(monkeypatch):
    monkeypatch.setattr(damage, "KINDS", {"whole": (damage.make_whole, True), "again": (damage.make_whole, False)})
    app = typer.Typer()
    app.command()(damage.main)
    done = CliRunner().invoke(app, ["--count", "2"])
    assert done.exit_code == 1 and "lost: 3" in done.stdout, done.stdout
