"""What holds the project's files together: stages and what they read, parameters, versions, imports, links."""

import ast
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import HANDWASH_CLASSES, ROOT, make_clips
from scipy import stats

from health_actions.data.annotations import count_clips
from health_actions.data.clips import NTU_ACTIONS
from health_actions.data.lists import read_lists
from health_actions.data.splits import NTU_PROTOCOLS, PROTOCOLS, make_splits
from health_actions.data.transforms import AUGMENTATIONS, SCALES
from health_actions.figures.tables import FITTED, describe_best, describe_pairs, format_p
from health_actions.learning.comparison import add_difference, compare_pairs, correct_holm, permute_signs
from health_actions.learning.recipe import Recipe
from health_actions.learning.scores import count_confusions, expand_percentiles, list_mix_ups, score_classes
from health_actions.params import BASE, overlay, read_stage
from health_actions.run import match_parameters

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())
PAPER = yaml.safe_load((ROOT / "published" / "handwash.yaml").read_text())
PAPER_B = yaml.safe_load((ROOT / "published" / "ntu_2022.yaml").read_text())
CONTENTS = yaml.safe_load((ROOT / "notebooks" / "21_report.yaml").read_text())
# Every table and figure of both papers, and a word for what it shows, in the words of our titles.
NUMBERED = {
    "handwash": {
        "table": ["architectures", "learning rate", "size of the frames", "augmentation", "three streams"],
        "figure": ["the classes", "clips per class and subset", "convlstm", "cnn-lstm", "learning curves",
                   "confusion matrix", "step 6 right, predicted as step 5 right",
                   "step 6 right, predicted as step 7 right", "step 2 left, predicted as step 7 right",
                   "upload of clips", "missing actions"]},
    "ntu": {
        "table": ["literature", "kinds of test", "top-1 and top-2", "resnet-101, each action",
                  "resnext-101, each action", "resnet-50, each action"],
        "figure": ["the method", "training input", "test input", "3-d convolution", "3-d max pooling",
                   "architecture of c3d", "model structure of c3d", "resnet-18", "resnet-50", "resnet-101",
                   "resnext-101", "squeezenet", "mobilenetv2", "shufflenetv2", "headache, chest pain and neck pain",
                   "scratch and from pretrained", "top-1 and top-2", "precision of resnet-101",
                   "recall of resnet-101", "f1 of resnet-101"]}}
PROFILES = ["laptop", "published"]
PAPERS_NETWORKS = "c3d resnet18 resnet50 resnet101 resnext101 mobilenetv2 shufflenetv2 squeezenet".split()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Change no result.
PLUMBING = {f"src/health_actions/{name}.py"
            for name in ("__init__", "figures/__init__", "params", "paths", "progress", "schema")}


def list_stages() -> list[str]:
    """One of each stage, as dvc calls it, but the report, which depends on everything."""
    items = {"${handwash.models}": "convlstm", "${ntu.models}": "squeezenet"}
    return [f"{name}@{items.get(str(item), 'ntu')}" if item else name for name, entry in STAGES.items()
            if name != "report" for item in [next(iter(entry.get("matrix", {}).values()), None)]]


def fill(text: str, stage: str) -> str:
    return re.sub(r"\$\{item\.\w+\}", stage.partition("@")[2], text)


def describe(stage: str) -> dict:
    """A stage: its notebook, dependencies and outputs from the root, the notebook's own defaults, further values."""
    entry = STAGES[stage.partition("@")[0]]
    command = fill(entry["cmd"], stage)
    notebook = ROOT / re.search(r"notebooks/\S+\.ipynb", command)[0]
    cells = nbformat.read(notebook, as_version=4).cells
    defaults = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return {"notebook": notebook, "deps": {fill(dep, stage) for dep in entry["deps"]},
            "outs": {fill(next(iter(out)), stage) for out in [*entry["outs"], *entry.get("metrics", [])]},
            "code": "\n".join(cell.source for cell in cells if cell.cell_type == "code"),
            "defaults": {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(defaults).body},
            "given": dict(re.findall(r"--set (\w+)=(\S+)", command))}


def list_imports(source: str) -> set[Path]:
    """Files of the project's packages that a piece of Python imports, one step deep."""
    names = {name for node in ast.walk(ast.parse(source)) for name in (
        [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        if isinstance(node, ast.Import) else [])}
    places = [ROOT / "src" / name.replace(".", "/") for name in names
              if name.startswith(("health_actions", "synthetic_clips"))]
    return {file for place in places for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()}


def test_every_notebook_but_the_first_steps_has_its_stage():
    named = {re.search(r"notebooks/(\S+)", str(entry["cmd"]))[1] for entry in STAGES.values()}
    assert {path.name for path in NOTEBOOKS} - {name.strip("'],") for name in named} == {"00_first_clip.ipynb"}


@pytest.mark.parametrize("stage", list_stages())
def test_a_stage_depends_on_every_module_and_file_that_its_notebook_uses(stage):
    described = describe(stage)
    found, rest = set(), list_imports(described["code"])
    while rest:
        file = rest.pop()
        found.add(file)
        rest |= list_imports(file.read_text()) - found
    used = {file.relative_to(ROOT).as_posix() for file in found} - PLUMBING
    used |= {"matplotlibrc"} if "src/health_actions/figures/style.py" in used else set()
    assert not {file for file in used if not any(f"{file}/".startswith(f"{dep}/") for dep in described["deps"])}
    paths = {value for value in (described["defaults"] | described["given"]).values()
             if isinstance(value, str) and value.startswith(("build/", "data/", "published/", "reports/"))}
    known = described["deps"] | described["outs"]
    assert {path for path in paths if path not in known and not path.endswith("/times")} <= {
        value for name, value in described["defaults"].items() if name in described["given"]}


@pytest.mark.parametrize("stage", list_stages())
def test_a_notebook_gets_all_its_values_and_starts_by_hand_with_those_of_the_laptop(stage):
    described, (sections, output) = describe(stage), read_stage(ROOT, stage)
    taken = match_parameters(described["notebook"], sections)  # an unknown one is an error
    paths = {name for name, value in described["defaults"].items() if isinstance(value, str) and "/" in value}
    assert set(described["defaults"]) - paths == {*taken, *described["given"]} - paths
    assert output in described["outs"]
    for name, value in taken.items():
        default = described["defaults"][name]
        if name == "architectures":
            default = {model: options for model, options in default.items() if model in value}
        assert overlay(value, default) == value, name


@pytest.mark.parametrize("profile", PROFILES)
def test_the_values_of_a_profile_make_recipes_and_name_what_exists(profile):
    values = overlay(VALUES[BASE], VALUES[profile])
    for study, left in (("handwash", "folds_trained"), ("ntu", "starts")):
        assert set(VALUES[BASE][study]) == set(VALUES["laptop"][study]), "dvc looks for every section in both"
        for name in VALUES[study]["models"]:
            options = values[study]["training"] | values[study]["architectures"][name]
            options.pop(left)
            assert Recipe(architecture=name, **options).size <= values[study]["frames"]["height"]
    a, b = values["handwash"], values["ntu"]
    for section in ("settings", "errors", "legacy_switches", "protocols"):
        assert a[section]["base"] in {"best", *VALUES["handwash"]["models"]} - {VALUES["handwash"]["rival"]}, section
    assert max(a["settings"]["sizes"]) <= a["frames"]["height"] and a["annotations"]["protocol"] in PROTOCOLS
    assert set(a["settings"]["augmentations"]) <= set(AUGMENTATIONS)
    assert set(a["protocols"]["compared_protocols"]) <= set(PROTOCOLS)
    assert b["annotations"]["protocol"] in {**PROTOCOLS, **NTU_PROTOCOLS}
    assert set(b["actions"]["detailed"].values()) <= set(VALUES["ntu"]["models"]) >= set(b["pretraining"])
    assert {*b["actions"]["alerts"], b["behaviour"]["falling"], b["behaviour"]["hand_action"]} <= set(
        VALUES["ntu"]["classes"])


def test_the_published_profile_is_the_papers_protocol():
    study = VALUES["published"]["ntu"]
    expected = {"window": 16, "stride": 2, "size": 112, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.001,
                "schedule": "steps", "milestones": [40], "gamma": 0.1, "epochs": 50, "momentum": 0.9, "dampening": 0.9,
                "weight_decay": 0.001, "crop": "corner", "scales": list(SCALES), "middle_square": False}
    assert {name: study["training"][name] for name in expected} == expected
    pretrained = {name for name, options in study["pretraining"].items() if options["released"]}
    starts = {name: (study["training"] | options)["starts"] for name, options in study["architectures"].items()}
    assert pretrained == {name for name in starts if "pretrained" in starts[name]}
    assert {"c3d", *pretrained} >= {*PAPERS_NETWORKS} and "c3d" not in pretrained
    study = VALUES["published"]["handwash"]
    expected = {"epochs": 50, "batch_size": 32, "learning_rate": 0.001, "betas": [0.9, 0.9], "weight_decay": 1e-5,
                "gamma": 0.9, "colour": "bgr", "window": 16}
    for name in PAPER["table_1"]:  # divided by 255 and nothing else
        recipe = Recipe(architecture=name, **{key: value for key, value in (
            study["training"] | study["architectures"][name]).items() if key != "folds_trained"})
        assert recipe.normalisation == ([0.0] * 3, [1.0] * 3) and recipe.size == 64
        assert {key: getattr(recipe, key) for key in expected} == expected
    counts, split = PAPER["clips"], study["annotations"]
    assert split["shares"][1:] == [counts["validation"], counts["testing"]] and sum(split["shares"]) == counts["total"]
    assert split["keep_duplicates"] and study["settings"]["grid_window"] == 10


def test_the_laptop_profile_takes_none_of_what_the_papers_did_to_their_input_and_splits():
    a, b = (overlay(VALUES[BASE][study], VALUES["laptop"][study]) for study in ("handwash", "ntu"))
    for study in (a, b):
        assert study["annotations"]["shares"] is None and not study["annotations"]["keep_duplicates"]
        assert all((study["training"] | options).get("colour") == "rgb" for options in study["architectures"].values())
    assert all((a["training"] | options)["normalise"] for options in a["architectures"].values())
    assert a["training"]["augmentation_probability"] == 0.5 and a["settings"]["grid_window"] is None
    assert b["training"]["dampening"] == 0 and b["training"]["scales"] == list(SCALES)


def test_the_classes_are_those_of_the_papers():
    published = yaml.safe_load((ROOT / "published" / "ntu_2022.yaml").read_text())["classes"]
    assert published == {number: name for number, name in NTU_ACTIONS.items() if 41 <= number <= 49}
    assert VALUES["ntu"]["classes"] == list(published.values()) and VALUES["handwash"]["classes"] == HANDWASH_CLASSES
    assert set(VALUES["ntu"]["source_classes"]) <= set(NTU_ACTIONS.values()) - set(published.values())
    assert PAPER["classes"] == HANDWASH_CLASSES and len(PAPER["figure_6"]) == 12


def run_cell(notebook: str, words: str, **names) -> dict:
    """Run the one cell of a notebook that holds these words; what its names then stand for."""
    cells = nbformat.read(next((ROOT / "notebooks").glob(f"{notebook}_*.ipynb")), as_version=4).cells
    [source] = [cell.source for cell in cells if cell.cell_type == "code" and words in cell.source]
    exec(source, names)
    return names


@pytest.mark.parametrize(("classes", "text"), [
    (HANDWASH_CLASSES, "; in the paper 54 of 61. The clips and the split differ, so the two counts are not compared"),
    (HANDWASH_CLASSES[:3], ""), ([f"action_{number}" for number in range(12)], "")], ids=["paper", "fewer", "other"])
def test_the_papers_confusions_are_shown_beside_the_papers_classes_alone(classes, text):
    saved = []
    common = {"pd": pd, "np": np, "yaml": yaml, "classes": classes, "at_root": ROOT.__truediv__,
              "published": "published/handwash.yaml", "output": "x"}
    names = run_cell("05", 'paper["figure_6"]', **common, paper=PAPER, plot_confusions=lambda table: table,
                     save_figure=lambda table, _: saved.append(table), write_text=lambda *_: None)
    assert names["comparison"] == text and len(saved) == bool(text)
    assert all(table.loc["step_7_right", "step_7_left"] == 1 for table in saved)
    predictions = pd.DataFrame({"class": classes[:2], "predicted": [classes[1]] * 2})
    tables = run_cell("08", "theirs", **common, predictions=predictions, count_confusions=count_confusions,
                      list_mix_ups=list_mix_ups, show_table=saved.append)
    shown = saved[-1]
    assert ("published" in shown) == bool(text) and shown["reproduced"].sum() == 1
    assert tables["mix_ups"]["published"].sum() == (7 if text else 0)
    assert shown[shown["reproduced"] > 0].iloc[0][["actual", "predicted"]].tolist() == classes[:2]


@pytest.mark.parametrize("notebook", ["02", "12"])
def test_the_notebook_of_the_split_has_a_line_for_each_clip_that_does_not_fit_the_lists(notebook, tmp_path):
    (tmp_path / "trainlist01.txt").write_text("step_1/a 1\nstep_1/b 1\nstep_1/gone 1\n")
    (tmp_path / "testlist01.txt").write_text("step_1/c 1\n")
    clips = make_clips([(f"step_1/{name}", "step_1", name, "G01") for name in "abcd"])
    shown = []
    names = run_cell(notebook, "read_lists(", pd=pd, clips=clips, classes=["step_1"], protocol="lists", folds=4, seed=0,
                     test_on="every_fold", lists="", at_root=lambda _: tmp_path, make_splits=make_splits,
                     shares=None, read_lists=read_lists, count_clips=count_clips, Markdown=shown.append)
    assert "**lists**, in 1 fold(s); 1 of 4 clips" in shown[0] and shown[0].splitlines()[2:] == [
        "- fold 1, step_1/gone: named in trainlist01.txt, line 3, but not among the clips in use.",
        "- fold 1, step_1/d: there, but in no list: not used."]
    assert len(names["splits"]) == 3 and len(names["notes"]) == 2


@pytest.mark.parametrize("study", NUMBERED)
def test_every_table_and_figure_of_the_papers_is_shown_under_its_own_number(study):
    sections = ("key", "tables", "charts", "audit", "structures")
    items = [item for section in sections for item in CONTENTS[study][section]]
    shown = {(kind, number): 0 for kind, subjects in NUMBERED[study].items() for number in range(len(subjects))}
    for file, title, _ in items:
        numbers = [re.match(r"(table|figure)[ _](\d+)(?=[_.:])", name) for name in (file, title.lower())]
        assert len({found and found.groups() for found in numbers}) == 1, f"{file} and {title} differ in their number"
        if numbers[0]:
            kind, number = numbers[0][1], int(numbers[0][2]) - 1
            assert NUMBERED[study][kind][number] in title.lower(), f"{title} has another subject"
            shown[kind, number] += 1
    assert all(shown.values()), shown


def test_structures_are_drawn_under_the_papers_numbers():
    numbers = run_cell("14", "draw_structure(table, title)", tables={})["numbers"]
    shown = {int(file.split("_")[1]): title for file, title, _ in CONTENTS["ntu"]["structures"] if "figure" in file}
    for model, number in numbers.items():
        assert model in shown[number].lower().replace("-", ""), model
        assert f"figure_{number}_{model}.svg" in {item[0] for item in CONTENTS["ntu"]["structures"]}
    assert sorted(numbers) == sorted(PAPERS_NETWORKS) and sorted(numbers.values()) == list(range(7, 15))


@pytest.mark.parametrize(("errors", "expected"), [
    ([], {}), ([("step_1", "step_3")] * 4, {"most_certain_1": 1, "most_certain_2": 2, "most_certain_3": 3}),
    ([("step_1", "step_3"), ("step_2_left", "step_7_right"), ("step_6_right", "step_5_right"),
      ("step_6_right", "step_5_right")], {"figure_7": 3, "figure_9": 2, "most_certain_1": 1}),
    ([("step_6_right", "step_7_right"), ("step_5_right", "step_6_right"), ("step_2_left", "step_7_right"),
      ("step_6_right", "step_5_right")], {"figure_7": 4, "figure_8": 1, "figure_9": 3})],
    ids=["none", "other kinds", "two of the kinds", "all kinds"])
def test_errors_have_the_papers_numbers_where_they_are_of_its_kinds(errors, expected):
    table = pd.DataFrame(errors, columns=["actual", "predicted"]).assign(number=range(1, len(errors) + 1))
    names = run_cell("08", "kinds = {", errors=table, Markdown=str)
    assert names["shown_errors"] == expected
    absent = {name for name in ("figure_7", "figure_8", "figure_9") if name not in expected}
    assert {name for name, line in zip(names["kinds"], names["lines"], strict=True) if "has none" in line} == absent


def evaluate_details(detailed: dict[str, str]) -> dict:
    """Run the cells of notebook 26 on Tables 4-6 and Figures 18-20: names of files -> what was to be written."""
    classes = VALUES["ntu"]["classes"]
    answers = pd.DataFrame({"class": classes * 2, "predicted": classes + classes[::-1], "recording": "P001"})
    written = {}

    def plot(table, label, panels):
        [(title, series)] = panels.items()
        return {title: table[list(series.values())]}

    names = {"pd": pd, "np": np, "paper": PAPER_B, "detailed": detailed, "classes": classes, "output": "x",
             "known_models": dict.fromkeys(PAPERS_NETWORKS, "scratch"), "at_root": Path, "Markdown": str,
             "preferred": pd.DataFrame({"model": PAPERS_NETWORKS, "start": "scratch"}), "show_table": list,
             "clip_level": {(model, "scratch"): answers for model in PAPERS_NETWORKS}, "score_classes": score_classes,
             "add_difference": add_difference, "plot_intervals": plot,
             "write_text": lambda path, text: written.update({path.name: text}),
             "save_figure": lambda figure, path: written.update({path.name: figure})}
    for words in ('papers = paper["tables"]', "by_table = {", "tables = {}", '"table_4" in tables'):
        names = run_cell("26", words, **names)
    return {**written, "means": names["means"]}


def test_tables_4_to_6_and_figures_18_to_20_are_of_the_papers_networks():
    written = evaluate_details(VALUES["published"]["ntu"]["actions"]["detailed"])
    means = written.pop("means").round(3)
    assert means["mean recall"].tolist() == [0.839, 0.829, 0.816]
    assert means["network"].tolist() == ["resnet101", "resnext101", "resnet50"]
    assert (means["mean recall"] - means["top-1 in Table 3"]).abs().max() < 0.006
    figures = {"figure_18_precision_resnet101.svg": [0.79, 0.98], "figure_19_recall_resnet101.svg": [0.76, 1.00],
               "figure_20_f1_resnet101.svg": [0.78, 0.99]}
    assert set(written) == {"table_4.csv", "table_5.csv", "table_6.csv", *figures}
    assert {"figure_18", "table_4"} < {re.match(r"[a-z]+_\d+", item[0])[0] for section in ("tables", "charts")
                                      for item in CONTENTS["ntu"][section] if item[0] in written}
    for name, ends in figures.items():
        [(title, table)] = written[name].items()
        measure = name.split("_")[2]
        assert title.lower() == f"{measure} of resnet101" and list(table) == [measure, f"published_{measure}"]
        assert table[f"published_{measure}"].iloc[[0, -1]].tolist() == ends


def test_another_network_does_not_get_a_papers_number():
    written = evaluate_details({"table_4": "squeezenet", "table_5": "resnext101"})
    assert set(written) == {"classes_squeezenet.csv", "table_5.csv", "means"}
    table = pd.read_csv(io.StringIO(written["classes_squeezenet.csv"]))
    assert table.filter(like="published").isna().all(axis=None)


# Sentences that computed numbers choose: each claims a difference that was measured, and none that was not.


def answer_clips(wrong: int, performers: int = 8) -> pd.DataFrame:
    """Predictions of four clips of each performer, of which so many are wrong."""
    clips = [f"{person}/{number}" for person in range(performers) for number in range(4)]
    table = pd.DataFrame({"clip": clips, "class": "a", "predicted": ["b"] * wrong + ["a"] * (len(clips) - wrong)})
    return table.assign(fold=1, recording=table["clip"].str[0], a=0.5, b=0.5)


def say(notebook: str, words: str, **names) -> str:
    """What a cell displays as Markdown; nothing is written."""
    shown = []
    common = {"pd": pd, "np": np, "at_root": Path, "output": "x", "write_text": lambda *_: None, "format_p": format_p}
    run_cell(notebook, words, **{**common, "Markdown": shown.append, **names})
    return shown[-1].replace("\n ", "")


@pytest.mark.parametrize(("wrong", "performers", "said"), [
    (32, 8, "right is better (paired by performer, Holm's correction for 2 tests, p = 0.016)"),
    (16, 4, "no difference could be measured (paired by performer, Holm's correction for 2 tests, p = 0.250; with 4 "
            "performers no p below 0.25 is possible)"),
    (1, 8, "no difference could be measured (paired by performer, Holm's correction for 2 tests, p = 1.000)")])
def test_a_sentence_on_two_models_claims_what_was_measured(wrong, performers, said):
    tables = {"right": answer_clips(0, performers), "other": answer_clips(wrong, performers)}
    sentences = describe_pairs(compare_pairs(tables, [("right", "other"), ("right", "right")]))
    first, second = sentences.splitlines()
    assert f"right alone is right on {wrong}, other alone on 0: {said}" in first and "p = 1.000" in second


@pytest.mark.parametrize(("wrong", "said"), [
    ((0, 32), "worse: other."), ((0, 1), "no difference could be measured from other."), ((32, 0), "better: other."),
    ((0,), "there is no other that fits its training clips.")])
def test_the_best_architecture_is_called_better_only_where_that_was_measured(wrong, said):
    tables = {name: answer_clips(count) for name, count in zip(("best", "other"), wrong)}
    pairs = compare_pairs(tables, [("best", other) for other in tables if other != "best"])
    table_1 = pd.DataFrame({"architecture": [*tables, "class_prior"], "low": [0.9, 0.05, 0.05][-len(tables) - 1:]})
    for training in (0.95, 0.85):
        text = say("04", "describe_best(pairs)", describe_best=describe_best, table_1=table_1.assign(training=training),
                   cards=tables, pairs=pairs, best={"architecture": "best"}, classes=["a", "b"], FITTED=FITTED,
                   list_mix_ups=list_mix_ups, confusions=count_confusions(answer_clips(3), ["a", "b"]))
        assert f"- Compared with best: {said}" in text and "class_prior" not in text
        assert ("Grey rows" in text) == (training < FITTED)


@pytest.mark.parametrize(("right", "seeds", "claimed", "most"), [
    (0, [30, 31], "BGR (-100.0 points).", 0), (0, [0, 30], "none; no difference could be measured.", 0),
    (16, [30, 31], "none; no difference could be measured.", 45)], ids=["beyond both", "as seeds", "four performers"])
def test_a_legacy_switch_has_an_effect_only_beyond_seeds_and_by_the_test(right, seeds, claimed, most):
    right = {"base": 32, "BGR": right, "no normalisation": 32, "random window": 32, "chosen on test clips": 32}
    switches = pd.DataFrame({"switch": [*right, "no seed"], "reproduced": [*(count / 32 for count in right.values()),
                                                                           np.mean(seeds) / 32]})
    switches = switches.assign(difference=switches["reproduced"] - 1, validation=0.5, performers=8, clips=32)
    switches = switches.assign(lowest=switches["difference"], highest=switches["difference"])
    switches.loc[5, ["lowest", "highest"]] = [min(seeds) / 32 - 1, max(seeds) / 32 - 1]
    tables = {run.replace("window", "window 0"): answer_clips(32 - count) for run, count in right.items()}
    text = say("09", "shown = [", switches=switches, repeats=2, compare_pairs=compare_pairs, stats=stats,
               results={name: SimpleNamespace(predictions=table) for name, table in tables.items()},
               usable=range(9), splits=pd.DataFrame({"clip": range(8)}))
    assert f"Effects claimed: {claimed}" in text and "With 8 performers no p below 0.031 is possible.\n" in text
    assert f"reach 0 points to each side in the median ({most} at most)." in text


@pytest.mark.parametrize(("wrong", "said"), [
    ({"stratified": [0, 1], "by_performer": [28, 32]}, "a difference (the ranges over 2 seed(s) do not"),
    ({"stratified": [0, 31], "by_performer": [28, 32]}, "no difference could be measured (the ranges over 2 seed(s) o"),
    ({"stratified": [0, 1], "by_performer": [2, 3]}, "no difference could be measured (the ranges over 2 seed(s) do")])
def test_a_protocol_makes_a_difference_only_beyond_seeds_and_by_the_test(wrong, said):
    results = {f"{protocol}, seed {seed}": SimpleNamespace(predictions=answer_clips(count))
               for protocol, counts in wrong.items() for seed, count in enumerate(counts)}
    shares = {protocol: [1 - count / 32 for count in counts] for protocol, counts in wrong.items()}
    means = pd.DataFrame(shares).agg(["mean", "min", "max"]).T
    names = run_cell("10", "pooled = {", pd=pd, results=results, means=means, seeds=[0, 1], at_root=Path, output="x",
                     compare_pairs=compare_pairs, format_p=format_p, write_text=lambda *_: None)
    [text] = names["texts"]
    assert f"points: {said}" in text and names["pairs"]["clips"].item() == 64


@pytest.mark.parametrize(("low", "high", "said"), [(1.02, 1.3, "more than the"), (0.8, 0.98, "less than the"), (
    0.9, 1.1, "no difference from the"), (np.nan, np.nan, "no difference from the")])
def test_saliency_is_called_learned_only_beside_the_untrained_model(low, high, said):
    ratios = pd.DataFrame({"model": ["trained", "trained/untrained"], "clips": "right", "count": 9, "performers": 4,
                           "area": 0.4, "share": 0.5, "ratio": [1.25, 1.1], "low": low, "high": high})
    assert f"): {said} untrained model" in say("08", "times that of the untrained model", ratios=ratios)


def test_ratios_of_saliency_are_over_performers():
    shares = pd.DataFrame({"recording": [1, 1, 2, 3], "right": [True, True, True, False], "share": [0.4, 0.4, 0.8, 0.3],
                           "area": 0.4, "untrained_share": 0.2, "untrained_area": 0.4})
    ratios = run_cell("08", '"trained/untrained"]\nrows', pd=pd, np=np, shares=shares, at_root=Path, output="x",
                      expand_percentiles=expand_percentiles,
                      write_text=lambda *_: None, show_table=list)["ratios"]
    right = ratios[ratios["clips"] == "right"].set_index("model")
    assert right["ratio"].tolist() == pytest.approx([4 / 3, 0.5, 8 / 3], abs=1e-3)
    assert right.loc["trained", ["low", "high"]].tolist() == [1, 2], "one of the two performers alone"
    assert right.loc["trained/untrained", ["low", "high"]].tolist() == [2, 4]
    assert ratios.loc[ratios["clips"] == "wrong", "low"].isna().all(), "one performer"


@pytest.mark.parametrize(("wrong", "training", "said"), [
    (32, 0.95, "from both starts: one, two. A difference is measured (corrected p < 0.05) for one."),
    (3, 0.95, "from both starts: one, two. A difference is measured (corrected p < 0.05) for none of them."),
    (32, 0.89, "from both starts: two. A difference is measured (corrected p < 0.05) for none of them.")])
def test_a_gain_of_pretraining_is_claimed_where_it_was_measured(wrong, training, said):
    level = {(model, start): answer_clips(count) for model, start, count in (
        ("one", "scratch", wrong), ("one", "pretrained", 0), ("two", "scratch", 1), ("two", "pretrained", 0))}
    starts = pd.DataFrame([{"model": model, "start": start, "clip_top1": (table["predicted"] == "a").mean(),
                            "training": training if (model, start) == ("one", "scratch") else 1.0}
                           for (model, start), table in level.items()])
    names = run_cell("17", "both = [model", pd=pd, yaml=yaml, at_root=ROOT.__truediv__, output="x", starts=starts,
                     published="published/ntu_2022.yaml", models=["one", "two"], clip_level=level, FITTED=FITTED,
                     compare_pairs=compare_pairs, write_text=lambda *_: None, show_table=list)
    figure_16 = names["figure_16"].set_index(["model", "start"])
    assert figure_16.loc[("one", "pretrained"), "gain"] == pytest.approx(wrong / 32, abs=1e-3)
    assert figure_16.loc[("one", "scratch"), ["gain", "gain_p"]].isna().all()
    assert said in say("17", "clear = gains[", figure_16=names["figure_16"], both=names["both"])


@pytest.mark.parametrize(("fall", "control", "said"), [
    (0.9, 0.1, "-0.90 on average, for control by -0.10: more than the control (8 performers, p = 0.016)"),
    (0.3, 0.3, "-0.30 on average, for control by -0.30: no difference from the control could be measured (8"),
    (0.1, 0.9, "no difference from the control could be measured (8 performers, p = 0.016)")])
def test_a_direction_counts_only_beside_its_neutral_control(fall, control, said):
    drops = {("fall", "control"): (pd.Series(fall, range(8)), pd.Series(control, range(8))),
             ("hand", "leg"): (pd.Series(dtype=float), pd.Series(dtype=float))}
    text = say("18", "directions = pd.DataFrame", drops=drops, permute_signs=permute_signs, correct_holm=correct_holm)
    assert said in text.splitlines()[0]
    assert "- hand: not compared with leg, no performer is in both." in text


def test_what_is_said_of_the_kinds_of_test_and_of_the_method_is_there():
    tables = []
    run_cell("18", "kinds_of_test = ", pd=pd, at_root=Path, output="x", write_text=lambda *_: None,
             show_table=tables.append)
    assert len(tables[0]) == 10 and tables[0]["kind"].is_unique
    for file in ", ".join(set(tables[0]["where"]) - {"this notebook"}).split(", "):
        assert (ROOT / file).is_file(), file
    cells = nbformat.read(ROOT / "notebooks" / "11_ntu_frames.ipynb", as_version=4).cells
    [steps] = [re.findall(r'^    "(\w+)": "', cell.source, re.MULTILINE) for cell in cells
               if cell.source.startswith("steps = ")]
    assert steps == [name for name in STAGES if name.startswith("ntu_")]


def test_imports_go_one_way():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_has_no_outputs_and_names_no_path_outside_the_project(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.cells[0].source.startswith("# ")
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")
            assert cell.outputs == [] and cell.execution_count is None
            assert not re.search(r'"(/\w|~)', cell.source)


def test_every_package_is_pinned_and_conda_users_get_the_same_versions():
    project = (ROOT / "pyproject.toml").read_text()
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.match(r"[A-Za-z0-9._-]+==[^ ]+( ;.*)?$", line) for line in lines)
    wanted = re.findall(r'^    "([a-z0-9-]+)(?:>=[0-9.]+)?",$', project, re.MULTILINE)
    assert set(wanted) <= {line.partition("==")[0].lower() for line in lines}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python={re.search(r'requires-python = .>=([0-9]+[.][0-9]+)', project)[1]}" in environment
    assert any("-r requirements.txt" in item["pip"] for item in environment if isinstance(item, dict))


def test_the_readme_lists_every_notebook_and_its_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"[{path.stem}](notebooks/{path.name})" in readme, path.name
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_what_can_be_made_again_is_not_in_git():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [file for file in files if file.startswith(("build/", "data/", ".venv/", "logs/", ".resume/"))]
    assert sum((ROOT / file).stat().st_size for file in files if file.startswith("storage/")) < 70e6
