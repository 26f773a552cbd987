"""params.yaml: one profile laid over the published one; and what a stage of dvc.yaml takes of it."""

import re

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from health_actions.params import overlay, read_params, read_stage

PARAMS = """
profile: small
machine: {devices: 1}
a: {classes: [x, y], models: [m, n]}
published:
  a: {training: {epochs: 50, rate: 0.1, options: {freeze: true}}, architectures: {m: {}, n: {size: 8}}, plain: {k: 1}}
small:
  a: {training: {epochs: 2}, architectures: {m: {size: 4}, n: {}}, plain: {}}
"""
STAGES = """
stages:
  a_training:
    matrix: {model: '${a.models}'}
    cmd: x
    params: [profile, machine, a.classes, published.a.training, '${profile}.a.training',
             'published.a.architectures.${item.model}', '${profile}.a.architectures.${item.model}']
    outs: ['build/a/${item.model}', 'build/a/notebooks/train_${item.model}.ipynb': {push: false}]
  a_rate: {cmd: x, params: [published.a.training.rate], outs: [build/a/notebooks/rate.ipynb]}
  none: {cmd: x, outs: [build/other]}
  wrong: {cmd: x, params: [published.a.trian], outs: [build/a/notebooks/wrong.ipynb]}
"""
VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
                      lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.yaml").write_text(STAGES)
    return tmp_path


def test_a_profile_lists_only_what_differs(project):
    values = read_params(project)
    assert values["a"]["training"] == {"epochs": 2, "rate": 0.1, "options": {"freeze": True}}
    assert values["a"]["architectures"] == {"m": {"size": 4}, "n": {"size": 8}}
    assert values["a"]["classes"] == ["x", "y"] and values["machine"] == {"devices": 1}
    assert values["profile"] == "small" and "published" not in values


def test_the_published_profile_is_a_profile_of_its_own(project):
    (project / "params.yaml").write_text(PARAMS.replace("profile: small", "profile: published"))
    assert read_params(project)["a"]["training"]["epochs"] == 50
    assert read_stage(project, "a_training@m")[0]["training"]["epochs"] == 50


@given(VALUES.filter(lambda value: isinstance(value, dict)), VALUES.filter(lambda value: isinstance(value, dict)))
def test_laid_over_a_value_is_that_of_the_profile_or_the_published_one(base, changes):
    merged = overlay(base, changes)
    assert overlay(base, {}) == base and overlay(merged, changes) == merged and set(merged) == set(base) | set(changes)
    for name, value in merged.items():
        if name not in changes or (isinstance(base.get(name), dict) and changes[name] is None):
            assert value == base[name]
        elif not isinstance(value, dict):
            assert value == changes[name]


def test_a_stage_takes_what_its_params_name_without_profile_and_study(project):
    sections, output = read_stage(project, "a_training@n")
    assert sections == {"profile": "small", "machine": {"devices": 1}, "classes": ["x", "y"],
                        "training": {"epochs": 2, "rate": 0.1, "options": {"freeze": True}},
                        "architectures": {"n": {"size": 8}}}
    assert output == "build/a/notebooks/train_n.ipynb"
    assert read_stage(project, "a_rate") == ({"training": {"rate": 0.1}}, "build/a/notebooks/rate.ipynb")


@pytest.mark.parametrize(("stage", "words"), [
    ("b_training", "dvc.yaml has no 'stages.b_training': at 'b_training' it has a_training, a_rate, none, wrong"),
    ("wrong", "params.yaml has no 'published.a.trian': at 'trian' it has training, architectures, plain"),
    ("a_training@o", "params.yaml has no 'published.a.architectures.o': at 'o' it has m, n"),
    ("none", "no executed notebook")])
def test_what_is_missing_is_named_with_what_is_known(project, stage, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        read_stage(project, stage)


def test_an_unknown_profile_is_named_with_those_there_are(project):
    (project / "params.yaml").write_text(PARAMS.replace("profile: small", "profile: big"))
    with pytest.raises(ValueError, match="params.yaml has no 'big': at 'big' it has profile, machine, a, published"):
        read_params(project)


HOSTILE = ["!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "2026-13-45", "[" * 20_000,
           "!!int x", "*nobody", "[1, 2", "b: c"]


@pytest.mark.parametrize("text", [*(f"# a comment\na: {value}\n" for value in HOSTILE), "", "7", "[]"],
                         ids=range(len(HOSTILE) + 3))
@pytest.mark.parametrize("file", ["params.yaml", "dvc.yaml"])
def test_yaml_that_is_unreadable_or_asks_for_more_than_values_is_an_error_in_one_line(project, text, file):
    (project / file).write_text(text)
    for read in (lambda: read_stage(project, "a_rate"), lambda: read_params(project))[:1 + (file == "params.yaml")]:
        with pytest.raises(ValueError, match=f"^{file} (is not readable: |has no )") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert not (project / "ran").exists()


@pytest.mark.parametrize("profile", ["laptop", "published"])
def test_every_stage_of_the_project_finds_its_parameters(tmp_path, profile):
    text = (ROOT / "params.yaml").read_text()
    values = yaml.safe_load(text)
    (tmp_path / "params.yaml").write_text(text.replace("profile: laptop", f"profile: {profile}", 1))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    for name, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        items = next(iter(entry.get("matrix", {"": [""]}).values()))
        items = values[name.partition("_")[0]]["models"] if isinstance(items, str) else items
        for item in items:
            sections, _ = read_stage(tmp_path, f"{name}@{item}")
            size = (sections.get("training", {}) | sections.get("architectures", {}).get(item, {})).get("size", 1)
            study = name.partition("_")[0] if name.startswith(("handwash_", "ntu_")) else "ntu"
            assert size <= read_params(tmp_path)[study]["frames"]["height"]
