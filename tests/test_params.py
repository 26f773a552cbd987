"""params.yaml: one profile laid over the published one; and what a stage of dvc.yaml takes of it."""

import re
import shutil
import subprocess
import sys
from typing import get_args

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from dvc.parsing import DataResolver
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from health_actions import paths
from health_actions.analysis.recognition import NONE, UNSEEN
from health_actions.data.splits import NTU_PROTOCOLS, PROTOCOLS
from health_actions.data.transforms import AUGMENTATIONS
from health_actions.learning.recipe import Augmentation
from health_actions.models import MODEL_NAMES, list_options
from health_actions.params import inspect_stages, overlay, pick, read_params, read_stage
from health_actions.schema import NTU, QUICK

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


def change(folder, *changes, profile="laptop"):
    """Write the project's params.yaml with other values: dotted key, value."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"profile": profile}
    for key, value in changes:
        *parts, last, section = *key.split("."), values
        for part in parts:
            section = section.setdefault(part, {})
        section[last] = value
    YAML().dump(values, folder / "params.yaml")


def test_a_profile_lists_only_what_differs(tmp_path):
    change(tmp_path, ("mine", {"handwash": {"training": {"epochs": 2}}, "ntu": None}), profile="mine")
    values, published = read_params(tmp_path), yaml.safe_load((ROOT / "params.yaml").read_text())
    assert values["handwash"]["training"] == published["published"]["handwash"]["training"] | {"epochs": 2}
    assert values["handwash"]["architectures"]["convlstm"] == {"size": 64, "weights": None}
    assert values["handwash"]["classes"] == published["handwash"]["classes"]
    assert values["profile"] == "mine" and "published" not in values
    assert values["ntu"].items() >= published["published"]["ntu"].items()


@pytest.mark.parametrize("profile", ["laptop", "published"])
def test_the_values_of_a_profile_are_those_of_the_file(tmp_path, profile):
    change(tmp_path, profile=profile)
    assert read_params(tmp_path)["handwash"]["training"]["epochs"] == {"laptop": 10, "published": 50}[profile]


def test_the_published_profile_is_a_profile_of_its_own(project):
    (project / "params.yaml").write_text(PARAMS.replace("profile: small", "profile: published"))
    assert read_stage(project, "a_training@m")[0]["training"]["epochs"] == 50


ALLOWED = {"0": "must be greater than or equal to 1, found 0", "1.5": "must be a valid integer, found 1.5",
           '"2"': 'must be a valid integer, found "2"', "null": "must be a valid dictionary, found null"}


@pytest.mark.parametrize(("key", "value", "words"), [
    *((f"laptop.{study}.training.epochs", yaml.safe_load(text), ALLOWED[text])
      for study in ("handwash", "ntu") for text in ("0", "1.5", '"2"')),
    ("laptop.handwash.annotations.folds", "3", 'must be a valid integer, found "3"'),
    ("laptop.ntu.training.batch_size", "8", 'must be a valid integer, found "8"'),
    ("published.handwash.training.betas", 0.9, "must be a valid list, found 0.9"),
    ("published.ntu.training.options", None, ALLOWED["null"]),
    ("laptop.handwash.architectures.resnet18.options", None, ALLOWED["null"]),
    ("laptop.handwash.frames.height", "48", 'must be a valid integer, found "48"'),
    ("published.handwash.frames.length", 0, "must be greater than or equal to 8, found 0"),
    ("published.handwash.frames.stride", 0, "must be greater than or equal to 1, found 0"),
    ("published.handwash.training.stride", 0, "must be greater than or equal to 1, found 0"),
    ("published.handwash.settings.sizes", ["64"], '[0] must be a valid integer, found "64"'),
    ("published.handwash.settings.learning_rates", [0.1, 0], "[1] must be greater than 0, found 0"),
    ("published.handwash.frames.quality", 96, "must be less than or equal to 95, found 96"),
    ("laptop.ntu.training.learning_rate", "2e-05", 'must be a valid number, found "2e-05"'),
    ("laptop.ntu.training.weight_decay", float("inf"), "must be a finite number, found Infinity"),
    ("published.ntu.annotations.keep_duplicates", 1, None),  # laptop has another value, which is in use
    ("laptop.ntu.annotations.keep_duplicates", 1, "must be a valid boolean, found 1"),
    ("laptop.ntu.annotations.protocol", "random", "must be 'stratified', 'by_performer', 'by_scene', 'published', "
     "'cross_subject', 'cross_view', 'cross_setup' or 'lists', found \"random\""),
    ("laptop.ntu.annotations.test_on", "last", "must be 'first_fold' or 'every_fold', found \"last\""),
    ("laptop.handwash.annotations.shares", [8, 2], "must have at least 3 items after validation, not 2, found [8, 2]"),
    ("laptop.ntu.annotations.shares", [8, 0, 2], "[1] must be greater than or equal to 1, found 0"),
    ("published.ntu.training.scales", [1.2], "[0] must be less than or equal to 1, found 1.2"),
    ("published.ntu.training.training_window", "begin", "must be 'random' or 'centre', found \"begin\""),
    ("published.ntu.actions.detailed.table_4", 4, "must be a valid string, found 4"),
    ("published.ntu.actions.alerts", "staggering", 'must be a valid list, found "staggering"'),
    ("laptop.ntu.pretraining.c3d.epochs", -1, "must be greater than or equal to 0, found -1"),
    ("published.ntu.behaviour.shift", 4, "must be less than or equal to 1, found 4"),
    ("published.ntu.behaviour.brightness", [], "must have at least 1 item after validation, not 0, found []"),
    ("published.ntu.behaviour.brightness", [0.8], None),
    ("published.ntu.behaviour.brightness", [0.8, 0], "[1] must be greater than 0, found 0"),
    ("laptop.handwash.architectures.cnn_lstm_alexnet.options.freze", True,
     "is no option of cnn_lstm_alexnet; known: freeze, lstm_width, dropout, grid"),
    ("published.ntu.architectures.r3d_18", {"options": {"width": 1}}, ".options.width is no option of r3d_18; known: "),
    ("published.ntu.training.options", {"last_layer_only": True}, None),
    ("published.ntu.training.options.wings", 2, "is no option of resnet18; known: shortcut, last_layer_only"),
    ("published.ntu.transforms.shown", "fall", "must name one of sneeze_cough, staggering, "),
    ("laptop.ntu.actions.alerts", ["falling_down", "stagering"], "must name one of sneeze_cough, staggering, "),
    ("laptop.ntu.actions.alerts", [], None),
    ("published.ntu.behaviour.falling", "fall", "must name one of sneeze_cough, staggering, "),
    ("published.handwash.errors.saliency_clips", None, None),
    ("published.handwash.export.tolerance", None, "must be a valid number, found null"),
    ("published.ntu.reject.unknown_clips", -1, "must be greater than or equal to 0, found -1"),
    ("published.ntu.landmark_fusion.unknown_clips", 1.0, "must be a valid integer, found 1.0"),
    ("published.ntu.landmark_training.balance", 2, "must be less than or equal to 1, found 2"),
    ("published.handwash.legacy_switches.repeats", 0, ALLOWED["0"]),
    ("laptop.handwash.protocols.base", "c3d", "must name one of convlstm, "),
    ("machine.devices", 0, ALLOWED["0"]), ("machine.compile", 1, "must be True, False or 'auto', found"),
    ("machine.accelerator", "tpu", "must be 'auto', 'cpu' or 'gpu', found \"tpu\""),
    ("laptop.handwash.training.epohs", 3, "is unknown; known: epochs"),
    ("laptop.handwash.architectures.resnet18.learnin_rate", 3, "is unknown; known: learning_rate"),
    ("published.ntu.frames.strid", 3, "is unknown; known: height, quality, address, backend, as_folders"),
    ("laptop.ntu.behavior", {}, "is unknown; known: behaviour"), ("machine.device", 1, "is unknown; known: devices"),
    ("laptop.handwash.architectures.resnet", {"size": 64}, ": unknown architecture resnet; known: convlstm, "),
    ("laptop.ntu.architectures.r3d_18", {"epochs": 1}, None),
    ("ntu.models", ["resnet18", "resnet"], "[1]: unknown architecture resnet; known: convlstm, "),
    ("ntu.models", ["convlstm"], "must name one of c3d, resnet18, "), ("ntu.models", [], "must have at least 1 item"),
    ("handwash.rival", "c3d", "must name one of convlstm, "), ("handwash.models", ["convlstm"], None),
    ("published", 5, "is written where no stage looks for it"), ("machin", {"devices": 1}, ".devices is written where"),
    ("laptop.handwash.classes", ["a", "b"], "is written where no stage looks for it: it belongs to handwash"),
    ("laptop.machine", {"devices": 2}, "is written where no stage looks for it: it belongs to no profile"),
    ("handwash.frames", {"height": 64}, "is written where no stage looks for it: it belongs to published"),
], ids=str)
def test_a_wrong_value_is_named_with_its_profile_what_is_allowed_and_what_was_found(tmp_path, key, value, words):
    change(tmp_path, (key, value))
    if words is None:
        read_params(tmp_path)
        return
    with pytest.raises(ValueError, match="^params.yaml: ") as caught:
        read_params(tmp_path)
    assert f"{key}{' ' if words[0].isalpha() else ''}{words}" in str(caught.value) and "\n" not in str(caught.value)


KEYS = [f"{start}{study}{name}" for start in ("", "published.", "laptop.") for study in ("handwash", "ntu")
        for name in ("", *(f".{name}" for name in NTU.model_fields), ".training.epochs", ".architectures.resnet18")]
JUNK = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.dates(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.text(max_size=3) | st.integers() | st.sampled_from(["resnet18", "height"]), inner,
                        max_size=3), max_leaves=5)


@given(st.sampled_from(["profile", "machine", "published", "laptop", *KEYS]), JUNK)
def test_whatever_a_file_holds_is_taken_or_refused_in_one_line(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("junk")
    try:
        change(folder, (key, value))
        read_params(folder)
    except ValueError as error:
        assert str(error).startswith("params.yaml") and "\n" not in str(error)


def test_streams_are_normalised_by_their_network(tmp_path):
    change(tmp_path, ("laptop.handwash.architectures.three_stream.normalise", False))
    with pytest.raises(ValueError, match="^params.yaml: laptop.handwash.architectures.three_stream: normalise must "):
        read_params(tmp_path)


def test_all_faults_are_named_at_once_and_what_is_missing_too(tmp_path):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    del values["published"]["ntu"]["training"]["betas"], values["machine"]["devices"], values["handwash"]["rival"]
    values["laptop"]["handwash"]["frames"]["height"] = 8
    YAML().dump(values, tmp_path / "params.yaml")
    with pytest.raises(ValueError) as caught:
        read_params(tmp_path)
    assert set(str(caught.value).removeprefix("params.yaml: ").split("; ")) == {
        "published.ntu.training.betas is missing", "machine.devices is missing", "handwash.rival is missing",
        "laptop.handwash.frames.height must be greater than or equal to 32, found 8"}


@pytest.mark.parametrize(("names", "words"), [
    ([1, "a"], r'\[0\]: quote your class names \("step 1"\): they must be text, found 1$'),
    (["a", None], r"\[1\]: quote your class names .* found null$"), (["a", True], r"\[1\]: quote .* found true$"),
    (["a"], "must have at least 2 items"), (["Step 1", "step_1"], "handwash: step_1 is listed twice in classes$"),
    (["caf\u00e9", "cafe\u0301"], "handwash: cafe\u0301 is listed twice in classes$"),
    *((["a", name], rf'\[1\]: tables or folders would take "{name}" for something else') for name in (
        "1", "2.5", "1e5", ".5", "nan", "NA", "N/A", "null", "None", "true", "inf", "class", "a/b", "a\nb", ".a",
        " a", "", "file", "Start", "end", "action", "probability", "error", "Recording", "take", "no action", NONE,
        *UNSEEN.values()))])
def test_classes_whose_names_tables_would_change_are_refused(tmp_path, names, words):
    change(tmp_path, ("handwash.classes", names))
    with pytest.raises(ValueError, match=words):
        read_params(tmp_path)


def test_plain_words_are_names_of_classes_and_come_back_from_a_table(tmp_path):
    names = ["yes", "no", "on", "Off", "none", "y", "1_wash", "2nd step", "é"]
    change(tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    classes = yaml.safe_load(text)["handwash"]["classes"]
    (tmp_path / "params.yaml").write_text(text.replace("".join(f"  - {name}\n" for name in classes), "".join(
        f"  - {name}\n" for name in names), 1))
    assert read_params(tmp_path)["handwash"]["classes"] == names
    pd.DataFrame({"class": names}).to_csv(tmp_path / "table.csv", index=False)
    assert pd.read_csv(tmp_path / "table.csv")["class"].tolist() == names


def test_the_schema_knows_what_the_code_knows():
    protocols = {*PROTOCOLS, *NTU_PROTOCOLS, "lists"}
    assert set(get_args(NTU.model_fields["annotations"].annotation.model_fields["protocol"].annotation)) == protocols
    assert list(get_args(Augmentation)) == list(AUGMENTATIONS) and set(QUICK) <= set(MODEL_NAMES)
    assert QUICK == {name: list_options(name) for name in QUICK}


def test_parameters_are_checked_without_torch_which_takes_seconds_to_import():
    code = ("import sys; from health_actions.params import read_params; read_params('.'); "
            "sys.exit(len({'torch', 'pandas'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


# As DVC reads it.

PLAIN = ["2e-05", "1e5", "1.", ".5", "017", "0o17", "0x1F", "1_000", "12:30", "yes", "no", "on", "True", "~", "Null",
         "NULL", "none", ".inf", ".nan", "2026-01-02", "=", "<<", "'2e-05'", "[1, 2", "{a: 1, a: 2}", "*a", "!!int x"]


@pytest.mark.parametrize("text", PLAIN)
def test_a_value_is_what_dvc_reads(text):
    try:
        expected = parse_yaml(f"a: {text}", "x.yaml")
    except (YAMLFileCorruptedError, ValueError):
        with pytest.raises(ValueError, match="^x.yaml is not readable: (line 1, column |invalid literal)"):
            paths.parse_yaml(f"a: {text}", "x.yaml")
        return
    assert repr(paths.parse_yaml(f"a: {text}", "x.yaml")) == repr(expected)


@given(st.binary(max_size=40) | st.text("ab:-[]{},&*!|>'\"#%@? \n\t01.e~<=", max_size=40))
def test_any_file_is_values_or_an_error_in_one_line(text):
    try:
        paths.parse_yaml(text, "x.yaml")
    except ValueError as error:
        assert str(error).startswith("x.yaml is not readable: ") and "\n" not in str(error)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_that_is_not_utf8_is_named(tmp_path, encoding):
    (tmp_path / "params.yaml").write_bytes("a: é".encode(encoding))
    with pytest.raises(ValueError, match="^params.yaml is not readable: it is not valid UTF-8: save it as UTF-8$"):
        read_params(tmp_path)


def test_numbers_that_dvc_writes_are_numbers(tmp_path):
    change(tmp_path)
    apply_overrides(tmp_path / "params.yaml", ["laptop.handwash.architectures.convlstm.learning_rate=0.00002",
                                               "+laptop.ntu.training.learning_rate=1e-5"])
    assert "learning_rate: 2e-05" in (tmp_path / "params.yaml").read_text()
    values = read_params(tmp_path)
    assert values["handwash"]["architectures"]["convlstm"]["learning_rate"] == 0.00002
    assert values["ntu"]["training"]["learning_rate"] == 0.00001


@pytest.mark.parametrize("profile", ["laptop", "published"])
def test_every_stage_has_the_values_that_dvc_fills_in(tmp_path, profile):
    change(tmp_path, profile=profile)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    raw, stages = paths.read_yaml(tmp_path / "params.yaml"), paths.read_yaml(tmp_path / "dvc.yaml")
    resolver, merged = DataResolver(Repo.init(str(tmp_path), no_scm=True), str(tmp_path), stages), read_params(tmp_path)
    for name in {name.partition("@")[0]: name for name in resolver.get_keys() if name != "report"}.values():
        [entry], (sections, output) = resolver.resolve_one(name).values(), read_stage(tmp_path, name)
        assert output in [next(iter(out)) for out in entry["outs"] if isinstance(out, dict)]
        item = name.partition("@")[2]
        study = item if item in ("handwash", "ntu") else name.partition("_")[0]
        for key in entry.get("params", []):  # of dvc, with values filled in
            base, path = key.removeprefix(f"{profile}.").removeprefix("published."), key.split(".")
            own = base.removeprefix("handwash.").removeprefix("ntu.")
            used = pick(sections, own)
            assert used == pick(merged, base) or isinstance(used, dict), key
            if path[0] in (profile, *merged):
                assert overlay(used, pick(raw, key)) == used, key
        size = (sections.get("training", {}) | sections.get("architectures", {}).get(item, {})).get("size", 1)
        assert study == "claims" or size <= merged[study]["frames"]["height"]  # a stage of both studies has no frames


def test_a_profile_may_have_any_name(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("profile: laptop", "profile: no").replace("\nlaptop:", "\nno:"))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    assert read_params(tmp_path)["handwash"]["training"]["epochs"] == 10
    assert read_stage(tmp_path, "handwash_training@convlstm")[0]["training"]["epochs"] == 10


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


def test_what_stages_lack_is_listed_once_for_all_of_them(project):
    text = PARAMS.replace("n: {size: 8}", "o: {}").replace("{epochs: 50, rate: 0.1, ", "{")
    (project / "params.yaml").write_text(text)
    assert inspect_stages(project) == [
        "params.yaml has no 'published.a.architectures.n': at 'n' it has m, o",
        "params.yaml has no 'published.a.training.rate': at 'rate' it has options",
        "dvc.yaml: stage none has no executed notebook (.ipynb) among its outs; add it",
        "params.yaml has no 'published.a.trian': at 'trian' it has training, architectures, plain"]


def test_a_profile_without_a_section_is_one_that_no_stage_can_use(tmp_path):
    change(tmp_path, ("mine", {"handwash": {"training": {"epochs": 2}}}), profile="mine")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    read_params(tmp_path)
    faults = inspect_stages(tmp_path)
    assert "params.yaml has no 'mine.handwash.frames': at 'frames' it has training" in faults
    assert "params.yaml has no 'mine.ntu.frames': at 'ntu' it has handwash" in faults
    assert len(faults) == len(set(faults))
    change(tmp_path)
    assert inspect_stages(tmp_path) == []


def test_an_unknown_profile_is_named_with_those_there_are(tmp_path):
    change(tmp_path, profile="big")
    with pytest.raises(ValueError, match="params.yaml has no 'big': at 'big' it has profile, machine, handwash, ntu, "):
        read_params(tmp_path)


HOSTILE = ["!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "2026-13-45", "[" * 1000,
           "!!int x", "*nobody", "[1, 2", "b: c", "1\na: 2"]


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
