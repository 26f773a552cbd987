"""Notebook 25: the rule for verdicts, every kind of comparison with both outcomes, and the claims themselves."""

import itertools
import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import costs
import numpy as np
import other_run
import pandas as pd
import pytest
import typer
import yaml
from conftest import ROOT
from scipy import stats
from test_project import CONTENTS, PAPER, PAPER_B, VALUES, run_cell

from health_actions.figures.tables import FITTED
from health_actions.learning.features import hash_files, hash_text

CLAIMS = yaml.safe_load((ROOT / "published" / "claims.yaml").read_text())
LISTED = [(study, claim) for study in CLAIMS for claim in CLAIMS[study]["claims"]]
ACTIONS = ["falling_down", "staggering", "headache", "neck_pain", "chest_pain"]
NAMES = {"np": np, "pd": pd, "stats": stats, "fnmatch": fnmatch, "claims": CLAIMS, "paper_a": PAPER, "paper_b": PAPER_B,
         "at_root": Path, "handwash_settings": "", "FITTED": FITTED}
CANNOT = "cannot be tested here"


@pytest.fixture(scope="module")
def rule() -> dict:
    """The functions of the notebook; a test sets networks, published and top2 of its own."""
    names = dict(NAMES, networks={"handwash": {}, "ntu": {}}, published={"handwash": {}, "ntu": {}}, top2={},
                 classes={"handwash": PAPER["classes"], "ntu": ACTIONS})
    for words in ("def resample(", "def compare_two(", "def compare_to_guessing(", "def compare_recalls(",
                  "def is_fitted(", "def list_comparisons(", "def compare_setting(", "def collect(",
                  "def describe_rows(", "def summarise("):
        names = run_cell("25", words, **names)
    return names


def make_network(right, *, wrong="headache", second=None, performers=8, training=1.0, actions=ACTIONS, **facts) -> dict:
    """A network tested on 20 clips of each action by each performer; `right` of them (of each, or by action) are right.

    Of some performers it is up to two more. A wrong answer is `wrong` (of that action itself another one), the second
    most probable action is `second`, or the right one.
    """
    rows, more = [], np.random.default_rng(right if isinstance(right, int) else 0).integers(0, 3, performers)
    for performer, action in itertools.product(range(performers), actions):
        correct = (right.get(action, 20) if isinstance(right, dict) else right) + more[performer]
        for clip in range(20):
            other = wrong if action != wrong else actions[actions.index(wrong) - 1]
            predicted = action if clip < correct else other
            ranks = {**dict.fromkeys(actions, 0.0), second or action: 0.3, predicted: 0.7}
            rows.append({"clip": f"{performer} {action} {clip}", "fold": 1, "class": action, "predicted": predicted,
                         **ranks, "performer": f"P{performer}", "movement": f"{performer} {action} {clip // 2}",
                         "synthetic": True, "known": False})
    return {"answers": pd.DataFrame(rows), "training": training, "weights": "random", "pixels": 64, "epochs": 10,
            **facts}


def decide(rule: dict, networks: dict, test: dict, study: str = "ntu", **published) -> tuple[str, list[dict]]:
    """Verdict on a claim with one test, and its comparisons."""
    for name, network in networks.items():
        network.setdefault("name", name)
    rule["networks"][study], rule["published"][study] = networks, published
    rows = rule["collect"]({"tests": [test]}, study)
    return rule["judge_claim"]([row["verdict"] for row in rows]), rows


@pytest.mark.parametrize(("low", "high", "least", "most", "verdict"), [
    (0.1, 0.3, 0, np.inf, "holds"), (-0.1, 0.3, 0, np.inf, "undecided"), (0.0, 0.3, 0, np.inf, "undecided"),
    (-0.3, -0.1, 0, np.inf, "contradicted"), (-0.05, 0.05, -0.1, 0.1, "holds"), (-0.05, 0.15, -0.1, 0.1, "undecided"),
    (0.12, 0.15, -0.1, 0.1, "contradicted"), (-0.2, -0.12, -0.1, 0.1, "contradicted")])
def test_a_verdict_is_where_the_interval_lies(rule, low, high, least, most, verdict):
    assert rule["judge"]((low + high) / 2, low, high, least, most) == verdict


@pytest.mark.parametrize(("reported", "error", "verdict"), [
    (0.2, 0.0, "holds"), (0.29, 0.0, "holds"), (0.35, 0.0, "same direction"), (0.35, 0.15, "holds"),
    (0.05, 0.0, "same direction"), (0.05, 0.15, "holds")])
def test_a_size_is_the_reported_one_within_both_errors(rule, reported, error, verdict):
    assert rule["judge"](0.2, 0.1, 0.3, 0, np.inf, reported, error) == verdict
    assert rule["judge"](0.2, -0.1, 0.3, 0, np.inf, reported, error) == "undecided", "the size alone confirms nothing"


@pytest.mark.parametrize(("verdicts", "verdict"), [
    (["holds"] * 3, "holds"), (["holds", "same direction"], "same direction"),
    (["same direction", "undecided"], "undecided"),
    (["undecided", CANNOT, "holds"], CANNOT), ([CANNOT, "contradicted", "holds"], "contradicted"), ([], CANNOT)])
def test_all_comparisons_of_a_claim_have_to_hold(rule, verdicts, verdict):
    assert rule["judge_claim"](verdicts) == rule["judge_claim"](verdicts[::-1]) == verdict


def test_intervals_are_those_of_performers_not_of_clips(rule):
    table = pd.DataFrame({"performer": np.repeat(list("abcdefgh"), 50)})
    together = np.repeat([True, False, True, False, True, True, False, True], 50)
    spread = np.tile(together[::50], 50)
    (value, low, high), (same, closer, to) = (rule["resample"]([(1, *rule["count"](table, counted))], 0.0, 0.05)
                                              for counted in (together, spread))
    assert value == same == 0.625 and high - low > 2 * (to - closer)
    deviation = together[::50].std(ddof=1) / np.sqrt(8)
    assert (low, high) == pytest.approx((0.625 - 2.36 * deviation, 0.625 + 2.36 * deviation), abs=0.07), "Student's t"
    assert (closer, to) == pytest.approx(tuple(stats.binomtest(250, 400).proportion_ci(method="wilson")), abs=0.001)
    _, low, high = rule["resample"]([(1, *rule["count"](table.iloc[::50], np.ones(8, bool)))], 0.0, 0.05)
    assert low < 0.7 and high == 1, "eight of eight clips prove little"


def test_a_pair_is_compared_on_the_clips_that_both_were_tested_on(rule):
    networks = {"a": make_network(15), "b": make_network(15)}
    other = networks["b"]["answers"]
    networks["b"]["answers"] = other[other["performer"] != "P0"].assign(predicted="headache")
    _, [row] = decide(rule, networks, {"order": ["a", "b"]})
    assert (row["clips"], row["performers"], row["movements"]) == (700, 7, 350)
    common = networks["a"]["answers"].query("performer != 'P0'")
    assert row["value"] == pytest.approx((common["class"] == common["predicted"]).mean() - 0.2)


# Kind of test -> what makes it hold, and what makes it fail.
KINDS = {
    "order": ({"order": ["a", "b", "c"]}, {"a": make_network(18), "b": make_network(14), "c": make_network(8)},
              {"a": make_network(18), "b": make_network(8), "c": make_network(14)}),
    "on a par": ({"order": ["a", "b"], "range": [-0.1, 0.1]}, {"a": make_network(15), "b": make_network(15)},
                 {"a": make_network(15), "b": make_network(5)}),
    "first": ({"first": ["net_*", "imagenet"], "over": ["*", "random"], "optional": True},
              {"net_a": make_network(18, weights="imagenet"), "b": make_network(9)},
              {"net_a": make_network(5, weights="imagenet"), "b": make_network(9)}),
    "chance": ({"chance": ["a"]}, {"a": make_network(10)}, {"a": make_network(1)}),
    "close to chance": ({"chance": ["a"], "range": [-0.1, 0.1]}, {"a": make_network(3)}, {"a": make_network(15)}),
    "gap": ({"gap": ["a"], "range": [0.1, np.inf]}, {"a": make_network(10)}, {"a": make_network(19)}),
    "second": ({"second": ["a"]}, {"a": make_network(10)},
               {"a": make_network(10, second="staggering", wrong="falling_down")}),
    "recall": ({"recall": ["falling_down"], "less": ["headache", "neck_pain"], "of": "a"},
               {"a": make_network({"headache": 14, "neck_pain": 14})}, {"a": make_network({"falling_down": 9})}),
    "never missed": ({"recall": ["falling_down"], "of": "a", "range": [0.8, np.inf]}, {"a": make_network({})},
                     {"a": make_network({"falling_down": 9})}),
    "mixed": ({"mixed": [["headache", "neck_pain", "chest_pain"]], "of": "a"}, {"a": make_network(9)},
              {"a": make_network(9, wrong="falling_down")}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_test_can_hold_and_be_contradicted(rule, kind):
    test, holds, fails = KINDS[kind]
    assert decide(rule, holds, test)[0] == "holds"
    assert decide(rule, fails, test)[0] == "contradicted"


def test_what_has_no_error_rises_or_does_not(rule, tmp_path):
    for values, verdict in (([3, 1, 2], "holds"), ([2, 1, 3], "contradicted"), ([1], CANNOT)):
        sizes = [128, 64, 84][:len(values)]
        pd.DataFrame({"size": sizes, "operations": values}).to_csv(tmp_path / "table.csv")
        test = {"rises": "operations", "by": "size", "file": tmp_path / "table.csv"}
        assert decide(rule, {}, test, "handwash")[0] == verdict


def test_reported_sizes_are_compared_with_their_error(rule):
    networks = {"a": make_network(18), "b": make_network(13)}
    for reported, clips, verdict in ((0.85, 77, "holds"), (0.99, 10_000, "same direction"), (0.99, 30, "holds")):
        found, [row] = decide(rule, networks, {"order": ["a", "b"]}, a=(reported, clips), b=(0.6, clips))
        assert found == verdict and row["reported"] == pytest.approx(reported - 0.6)
    _, [row] = decide(rule, networks, {"order": ["a", "b"], "range": [-1, 1]}, a=(0.9, 77), b=(0.6, 77))
    assert row["reported"] is None, "a range says the size itself"


@pytest.mark.parametrize(("networks", "reason"), [
    ({"a": make_network(18)}, "b was not trained"),
    ({"a": make_network(18), "b": make_network(9, training=0.89)}, "b is not fitted (0.89 on its training clips)"),
    ({"a": make_network(18, performers=5), "b": make_network(9, performers=5)}, "clips of 5 performers, 6 are needed")])
def test_what_cannot_be_tested_has_its_reason_and_is_left_out_where_it_is_optional(rule, networks, reason):
    verdict, rows = decide(rule, networks, {"order": ["a", "b"]})
    assert verdict == CANNOT and [row["why"] for row in rows] == [reason]
    assert rule["describe_rows"](rows) == reason and rule["describe_count"](rows) == "-"
    verdict, rows = decide(rule, networks, {"order": ["a", "b"], "optional": True})
    assert (verdict, rows) == (CANNOT, []) and rule["describe_rows"](rows) == "no fitted networks to compare"


def test_without_errors_or_with_other_actions_nothing_is_tested(rule):
    for test, reason in (({"mixed": [["headache", "neck_pain"]], "of": "a"}, "there is no such clip"),
                         ({"second": ["a"]}, "there is no such clip"),
                         ({"recall": ["fan_self"], "of": "a"}, "fan_self is no action here")):
        assert decide(rule, {"a": make_network(20)}, test)[1][0]["why"] == reason


def test_more_comparisons_need_wider_intervals(rule):
    networks = {name: make_network(right) for name, right in zip("abcd", (18, 15, 11, 7))}
    widths = [np.ptp([[row["low"], row["high"]] for row in decide(rule, networks, {"order": order})[1][:1]])
              for order in (["a", "b"], ["a", "b", "c", "d"])]
    assert widths[1] > widths[0]
    _, rows = decide(rule, networks, {"order": list("abcd")})
    assert rule["describe_rows"](rows).startswith("of 3 comparisons 3 hold; a - b: +14.4 points (")
    assert rule["describe_count"](rows) == "800 (400, 8)"


def test_settings_that_are_the_papers_and_others(rule):
    same = make_network(9, name="cnn_lstm_alexnet", weights="imagenet", epochs=50)
    same["answers"] = same["answers"].assign(synthetic=False, known=True)
    rule["networks"]["handwash"] = {"base": same, "other": make_network(9, name="cnn_lstm_mine", pixels=96)}
    found = rule["compare_setting"](["base"], "handwash", {})
    assert found == {"data": "filmed; the same if they are the paper's 711", "weights": "yes", "protocol": "yes"}
    assert rule["compare_setting"](["base"], "handwash", {"pixels": 128})["protocol"] == "no: 64 pixels in place of 128"
    found = rule["compare_setting"](["other"], "handwash", {})
    assert found["data"] == "no: synthetic clips" and "cnn_lstm_mine in place of cnn_lstm_alexnet" in found["weights"]
    assert found["protocol"] == "no: unseen performers; 96 pixels in place of 64; 10 epochs in place of 50"
    own = {"name": "resnet50/pretrained", "weights": "build/ntu/pretrained/resnet50/x"}
    for weights, text in ((own["weights"], "no: our own pretraining in place of kinetics"),
                          ("weights/kinetics_resnet_50_RGB_16_best.pth", "yes")):
        rule["networks"]["ntu"] = {own["name"]: make_network(9, **own | {"weights": weights})}
        assert rule["compare_setting"]([own["name"]], "ntu", {})["weights"] == text


def test_an_unfitted_network_counts_where_the_claim_is_about_what_a_setting_reaches(rule):
    known = {"rate 0.01": make_network(9, name="net", training=0.4)}
    assert rule["say_why_not"](["rate 0.01"], known, ACTIONS) == "rate 0.01 is not fitted (0.40 on its training clips)"
    assert rule["say_why_not"](["rate 0.01"], known, ACTIONS, unfitted=True) == ""


def test_a_comparison_says_where_its_claim_puts_the_value(rule):
    row = {"text": "a - b", "value": -0.05, "low": -0.12, "high": 0.02, "range": [-0.1, 0.1]}
    assert rule["describe_row"](row) == "a - b: -5.0 points (-12.0 to +2.0, claimed: -10 to 10)"
    row = {"text": "recall of falling", "value": 0.98, "low": 0.9, "high": 1.0, "range": [0.95, np.inf]}
    assert rule["describe_row"](row) == "recall of falling: 98.0 points (90.0 to 100.0, claimed: at least 95)"
    assert "claimed" not in rule["describe_row"](row | {"range": [0, np.inf]})


@pytest.mark.parametrize(("clips", "right", "verdict", "said"), [
    (2, 20, "undecided", "claimed: at least 95; 16 clips cannot show it: at best 80.6 to 100.0)"),
    (20, 20, "holds", "claimed: at least 95)"), (20, 18, "undecided", "claimed: at least 95)")])
def test_a_claim_says_where_its_clips_are_too_few_for_it(rule, clips, right, verdict, said):
    network = make_network({"falling_down": right})
    network["answers"] = network["answers"].groupby(["performer", "class"]).head(clips).reset_index(drop=True)
    found, [row] = decide(rule, {"a": network}, {"recall": ["falling_down"], "of": "a", "range": [0.95, np.inf]})
    assert found == verdict and rule["describe_row"](row).endswith(said)


@pytest.mark.parametrize(("others", "verdict"), [
    ([], "holds"), (["holds", "holds"], "holds"), (["holds", "same direction"], "same direction"), ([CANNOT], "holds"),
    (["holds", "contradicted"], "undecided"), (["undecided"], "undecided")])
def test_a_verdict_that_another_seed_changes_is_undecided(rule, others, verdict):
    assert rule["judge_runs"]("holds", others) == verdict
    assert rule["judge_runs"](CANNOT, others) == CANNOT


def test_a_run_counts_where_its_networks_had_the_same_recipes_and_another_seed(rule, tmp_path):
    own = {"one": {"name": "one", "recipe": "a", "seed": 0}, "two": {"name": "two", "recipe": "b", "seed": 0}}
    own = {name: make_network(9) | facts for name, facts in own.items()} | {"best": make_network(9) | own["one"]}
    file = tmp_path / "other_runs.yaml"
    there = {"one": {"recipe": "a", "seed": 1, "top1": 0.5}, "two": {"recipe": "c", "seed": 1, "top1": 0.25}}
    file.write_text(yaml.safe_dump([{"networks": {"ntu": there, "handwash": {}}, "verdicts": {}}]))
    names = run_cell("25", "def find_runs(", **rule | {
        "networks": {"ntu": own, "handwash": {}}, "other_runs": str(file), "output": str(tmp_path), "yaml": yaml,
        "at_root": Path, "write_text": lambda path, text: Path(path).write_text(text), "Markdown": str,
        "show_table": lambda table: table})
    assert [list(names["find_runs"](asked, "ntu")) for asked in (["one"], ["best", "one"], ["two"], ["one", "two"], [])
            ] == [["seed 1"], ["seed 1"], [], [], []]
    assert pd.read_csv(tmp_path / "seeds.csv").set_index("network")["seed 1"].to_dict() == {
        "one": 0.5, "two": pytest.approx(float("nan"), nan_ok=True)}
    for network in own.values():
        network["seed"] = 1
    assert names["find_runs"](["one"], "ntu") == {}, "the same seed says nothing new"


@pytest.mark.parametrize(("change", "verdict"), [
    (lambda here, there: None, "undecided"),
    (lambda here, there: there["networks"]["ntu"]["one"].update(seed=0), "holds"),
    (lambda here, there: there["networks"]["ntu"]["one"].update(recipe="of more epochs"), "holds"),
    (lambda here, there: there["verdicts"].clear(), "holds"),
    (lambda here, there: here.update(best="two"), "holds"),  # it was another network that was best there
    (lambda here, there: here.update(least=0.95), "holds")],
    ids=["same", "seed", "recipe", "not judged", "best", "test"])
def test_a_claim_is_compared_with_runs_that_tested_the_same_networks_in_the_same_way(rule, tmp_path, change, verdict):
    here, written = {"best": "one", "least": 0.5}, {}

    def judge():
        own = {name: make_network(9) | {"name": name, "recipe": name, "seed": 0} for name in ("one", "two")}
        row = {"names": ["best"], "text": "best", "why": "", "verdict": "holds", "value": 0.6, "low": 0.5, "high": 0.7,
               "clips": 100, "movements": 50, "performers": 8, "range": [0, np.inf]}
        claim = {"id": "B1", "where": "", "claim": "", "showed": "", "shown": "", "tests": [{"range": here["least"]}]}
        names = rule | {
            "networks": {"ntu": own | {"best": own[here["best"]]}, "handwash": {}},
            "comparisons": {("ntu", "B1"): [row]},
            "claims": {"ntu": {"claims": [claim]}}, "compare_setting": lambda *_: {}, "yaml": yaml, "json": json,
            "hash_text": hash_text, "output": "", "other_runs": str(tmp_path / "other_runs.yaml"), "at_root": Path,
            "write_text": lambda path, text: written.update({path.name: text}), "Markdown": str,
            "show_table": lambda table, **_: table}
        for words in ("def find_runs(", "judged = []"):
            names = run_cell("25", words, **names)
        return names["judged"].iloc[0]

    assert judge()["verdict"] == "holds" and judge()["same_with_other_seeds"] == ""
    there = yaml.safe_load(written["run.yaml"])
    there["networks"]["ntu"]["one"]["seed"], there["verdicts"]["B1"]["verdict"] = 1, "contradicted"
    change(here, there)
    (tmp_path / "other_runs.yaml").write_text(yaml.safe_dump([there]))
    judged = judge()
    assert (judged["verdict"], judged["own_verdict"]) == (verdict, "holds")
    assert judged["measured"].endswith("of this run alone: holds; contradicted with seed 1") == (verdict != "holds")
    assert judged["same_with_other_seeds"] == ("no" if verdict != "holds" else "")


def test_other_seeds_stand_behind_the_interval_of_this_run():
    rows = pd.DataFrame({"model": "one", "start": ["scratch", "pretrained"], "clip_top1": [0.4, 0.5], "low": 0.3,
                         "high": 0.6, "clip_top2": 0.7, "clips": 9, "performers": 3})
    tables = {}
    for known in ({}, {("ntu", "one/pretrained"): "0.480"}):
        build = run_cell("21", "def list_networks(", repeated=known, pd=SimpleNamespace(
            DataFrame=pd.DataFrame, read_csv=lambda _: pd.DataFrame({"model": ["one"], "published_top1": 0.8})))
        tables[len(known)], _ = build["list_networks"](Path("x"), rows)
    assert list(tables[0])[3:7] == ["pretrained", "low", "high", "top-2"]
    assert list(tables[1])[3:8] == ["pretrained", "low", "high", "from scratch, other seeds", "pretrained, other seeds"]
    assert tables[1].iloc[0, 6:8].tolist() == ["-", "0.480"]


@pytest.mark.parametrize(("same", "said"), [(["yes", "no", ""], "2 claims could be tested in this run and with "
                                             "another seed; the verdict was the same for 1 of them."), (["", ""], "")])
def test_the_report_says_how_far_other_seeds_agree(tmp_path, same, said):
    folder = tmp_path / "build" / "claims" / "verdicts"
    folder.mkdir(parents=True)
    (folder / "sentences.txt").write_text("One.")
    columns = ["study", "shown", "id", "where", "claim", "verdict", "showed", "measured", "clips"]
    pd.DataFrame([dict.fromkeys(columns, "x") | {"same_with_other_seeds": one} for one in same]).to_csv(
        folder / "claims.csv", index=False)
    pd.DataFrame({"study": "ntu", "network": ["one", "two"], "here": [0.5, 0.4], **(
        {"seed 1": [0.48, 0.5]} if said else {})}).to_csv(folder / "seeds.csv", index=False)
    written = {}
    names = run_cell("21", "claims, sentences, spread", root=tmp_path, reports=tmp_path, pd=pd,
                     write_text=lambda file, text: written.update({file.name: text}),
                     origins={tmp_path / "claims" / "25_claims" / "comparisons.csv": {}})
    assert names["spread"] == (f"{said} Accuracies on test clips differ from this run's by 6.0 points in the median of "
                               "all networks and settings, by 10.0 at most. Without a counterpart, since they "
                               "could not be tested in both or compare other networks there: x." if said else "")
    assert written["sentences.md"] == "- One.\n"
    assert names["repeated"] == ({("ntu", "one"): "0.480", ("ntu", "two"): "0.500"} if said else {})


def test_a_run_with_another_seed_is_added_once(tmp_path, monkeypatch):
    made = tmp_path / "other" / "build" / "claims" / "verdicts" / "run.yaml"
    (tmp_path / "published").mkdir()
    monkeypatch.setattr(other_run, "find_root", lambda: tmp_path)
    with pytest.raises(typer.BadParameter, match="run make repro in"):
        other_run.main(tmp_path / "other")
    made.parent.mkdir(parents=True)
    made.write_text(yaml.safe_dump({"networks": {"ntu": {"one": {"seed": 1}}}, "verdicts": {}}))
    with pytest.raises(typer.BadParameter, match="is not a clone"):
        other_run.main(tmp_path / "other")
    for name in ("params.yaml", "code.py"):
        (tmp_path / "other" / name).touch()
    for command in ("init -q", "add params.yaml code.py", "-c user.name=a -c user.email=a@b.c commit -qm a"):
        subprocess.run(["git", *command.split()], cwd=tmp_path / "other", check=True)
    (tmp_path / "other" / ".gitignore").write_text("*\n")
    for name in ("params.yaml", "code.py"):
        (tmp_path / "other" / name).write_text("seed: 1")
    with pytest.raises(typer.BadParameter, match="more than params.yaml and results: M code.py"):
        other_run.main(tmp_path / "other")
    (tmp_path / "other" / "code.py").write_text("")
    other_run.main(tmp_path / "other")
    [run] = yaml.safe_load((tmp_path / "published" / "other_runs.yaml").read_text())
    assert run["networks"] == {"ntu": {"one": {"seed": 1}}} and run["processor"] and run["measured"]
    assert re.fullmatch("[0-9a-f]{7,}", run["commit"])
    with pytest.raises(typer.BadParameter, match="already"):
        other_run.main(tmp_path / "other")


def test_the_three_sentences_say_what_the_verdicts_are(rule):
    judged = pd.DataFrame([("handwash", "A is good", "holds"), ("handwash", "B is good", "holds"),
                           ("handwash", "C is bad", "contradicted"), ("ntu", "D is good", "undecided")],
                          columns=["study", "claim", "verdict"])
    sentences = rule["summarise"](judged, True)
    assert sentences == [
        "Of 4 claims of two student reports, tested on synthetic clips, 2 hold, 1 is contradicted and 1 stays "
        "undecided.",
        "Hand washing: it holds that A is good and that B is good; it is contradicted that C is bad.",
        "Medical actions: none of the claims could be confirmed or contradicted."]
    judged.loc[3, "verdict"] = "same direction"
    assert "the clips at hand" in rule["summarise"](judged, False)[0]
    assert rule["summarise"](judged, False)[2] == "Medical actions: it holds in direction, not in size, that D is good."


def test_a_networks_training_accuracy_is_the_mean_of_its_folds(tmp_path, monkeypatch):
    pretraining = {"weights": None, "epochs": 5}

    def read(seed=3, **changes):
        cards = [{"training": {"weights": None, "epochs": 5, "seed": seed, **changes}, "clip": {"size": 64},
                  "data": "x", "frames": 1, "scores": {"training_clip_top1": share}} for share in (0.9, 0.7)]
        names = run_cell("25", "def read_network(", np=np, json=json, hash_text=hash_text,
                         read_cards=lambda folder: cards if folder == Path("c3d") else [
                             {"training": pretraining, "data": "y", "frames": 1}], at_root=Path)
        return names["read_network"](Path("c3d"))

    network = read()
    recipe = network.pop("recipe")
    assert network == {"name": "c3d", "training": pytest.approx(0.8), "weights": "random", "pixels": 64, "epochs": 5,
                       "seed": 3}
    assert read(seed=4)["recipe"] == recipe != read(epochs=6)["recipe"], "a recipe is the same with another seed"
    file, folder = tmp_path / "weights" / "kinetics.pth", tmp_path / "pretrained" / "fold_1"
    for start in (file, folder / "card.json"):
        start.parent.mkdir(parents=True)
        start.touch()
    assert read(weights=str(file))["recipe"] != recipe, "a file of released weights has no recipe of its own"
    begun = read(weights=str(folder))
    monkeypatch.setitem(pretraining, "epochs", 7)
    assert read(weights=str(folder))["recipe"] != begun["recipe"], "another pretraining is another recipe"


def test_clips_get_their_performer_and_whether_training_knew_them(tmp_path):
    pd.DataFrame({"clip": list("xyz"), "recording": ["001", "001", "002"], "synthetic": [True, True, False],
                  "take": ["t", "t", "u"]}).to_csv(tmp_path / "clips.csv")
    pd.DataFrame({"clip": list("xyz"), "recording": ["001", "001", "002"], "fold": 1,
                  "subset": ["training", "testing", "testing"]}).to_csv(tmp_path / "splits.csv")
    describe = run_cell("25", "def describe_clips(", pd=pd)["describe_clips"](tmp_path)
    found = describe(pd.DataFrame({"clip": ["y", "z"], "fold": 1}))
    assert found[["performer", "movement", "known", "synthetic"]].values.tolist() == [
        ["001", "t", True, True], ["002", "u", False, False]]


def test_in_the_papers_matrix_two_of_seven_errors_are_the_other_hand(rule):
    [claim] = [claim for _, claim in LISTED if claim["where"] == "Figure 6"]
    assert rule["count_published_mixes"](claim["tests"][0]["mixed"]) == (2, 6), "of the seven one is of step 3"


# The claims.


def list_numbers(values) -> set[float]:
    """Every number of a published file, in per cent."""
    if isinstance(values, dict | list):
        return set().union(*map(list_numbers, values.values() if isinstance(values, dict) else values))
    return {round(100 * values, 1)} if isinstance(values, float) else set()


@pytest.mark.parametrize(("study", "claim"), LISTED, ids=[claim["id"] for _, claim in LISTED])
def test_a_claim_names_what_exists_and_has_the_papers_numbers(study, claim):
    shown = {item[0] for section in ("key", "tables", "charts") for item in CONTENTS[study][section]}
    assert claim["shown"] in shown or any(f'/ \\"{claim["shown"]}\\"' in path.read_text()
                                          for path in (ROOT / "notebooks").glob("*.ipynb")), claim["shown"]
    known = list_numbers(PAPER if study == "handwash" else PAPER_B) | {8.3}
    assert {float(number) for number in re.findall(r"\d+\.\d(?= %)", claim["showed"])} <= known
    models = VALUES[study]["models"] + ["base", "best"]
    settings = VALUES["published"]["handwash"]["settings"]
    runs = {*settings["augmentations"], *(f"{size} pixels" for size in settings["sizes"]), *(
        f"batch {batch}, rate {rate}" for batch in settings["batch_sizes"] for rate in settings["learning_rates"])}
    for test in claim["tests"]:
        kinds = {"order", "first", "chance", "gap", "second", "recall", "mixed", "rises"} & set(test)
        assert len(kinds) == 1 and set(test) <= kinds | {"over", "of", "less", "by", "file", "range", "optional"}
        for name in [*sum((test.get(kind, []) for kind in ("order", "chance", "gap", "second")), []),
                     *([test["of"]] if "of" in test else [])]:
            assert name.partition("/")[0] in models or name in runs, name
        actions = [*test.get("recall", []), *test.get("less", []), *sum(test.get("mixed", []), [])]
        assert set(actions) <= set(VALUES[study]["classes"])


def test_claims_are_numbered_in_order():
    assert [claim["id"] for _, claim in LISTED] == [
        f"{letter}{number}" for letter, study in zip("AB", CLAIMS) for number in
        range(1, len(CLAIMS[study]["claims"]) + 1)]


# Again, by other means, from the committed files.


def read_again(study: str, name: str) -> pd.DataFrame | None:
    """Whether each clip was answered rightly, and its performer."""
    file = next((ROOT / "reports" / study).glob(f"*_evaluation/predictions_{name.replace('/', '_')}.csv"), None)
    if file is None:
        return None
    table = pd.read_csv(file, dtype={"recording": str})
    return table.assign(right=table["class"] == table["predicted"])[["clip", "recording", "right"]]


def test_committed_differences_intervals_and_verdicts_come_out_again():
    file = ROOT / "reports" / "claims" / "25_claims" / "comparisons.csv"
    if not file.is_file():
        pytest.skip("no committed comparisons.csv")
    table, compared = pd.read_csv(file), 0
    sizes = table[table["verdict"] != CANNOT]["claim"].value_counts()
    for row in table[table["verdict"] != CANNOT].itertuples():
        study = "handwash" if row.claim.startswith("A") else "ntu"
        pair = [read_again(study, name) for name in row.comparison.split(" - ")]
        if len(pair) == 2 and all(one is not None for one in pair):
            both = pair[0].merge(pair[1], on=["clip", "recording"])
            gains = both["right_x"].astype(int) - both["right_y"].astype(int)
            people = [group.to_numpy() for _, group in gains.groupby(both["recording"])]
            draws, count = np.random.default_rng(1), len(people)
            means = [np.concatenate([people[one] for one in draws.integers(count, size=count)]).mean()
                     for _ in range(1000)]
            value, error = gains.mean(), np.std(means) * np.sqrt(count / (count - 1))
            wide = error * stats.t.ppf(1 - 0.025 / sizes[row.claim], count - 1)
            assert row.value == pytest.approx(value, abs=1e-4) and row.clips == len(both)
            assert (row.low, row.high) == pytest.approx((value - wide, value + wide), abs=0.3 * wide + 0.01)
            compared += 1
        if row.verdict in ("holds", "same direction") and not np.isnan(row.reported):
            own = row.value - row.low if row.reported < row.value else row.high - row.value
            far = (row.value - row.reported) ** 2 - own**2 - row.reported_error**2
            assert abs(far) < 0.001 or (far > 0) == (row.verdict == "same direction")
    assert compared or table["verdict"].eq(CANNOT).all()
    claims = pd.read_csv(file.with_name("claims.csv"), keep_default_na=False).set_index("id")
    for claim, verdicts in table.groupby("claim")["verdict"]:
        ranks = ["contradicted", CANNOT, "undecided", "same direction", "holds"]
        own = next(verdict for verdict in ranks if verdict in set(verdicts))
        others = [text.rpartition(" with ")[0] for text in claims.loc[claim, "other_seeds"].split("; ") if text]
        changes = own != CANNOT and any(other not in (own, CANNOT) for other in others)
        assert claims.loc[claim, "own_verdict"] == own
        assert claims.loc[claim, "verdict"] == ("undecided" if changes else own)


def test_the_cost_of_a_training_is_that_of_the_weights_at_hand(tmp_path):
    for fold, text, seconds in ((1, "one", 60), (2, "two", 90), (2, "of an earlier run", 999)):
        folder = tmp_path / "build" / "ntu" / "models" / "net" / "scratch" / f"fold_{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        if seconds < 999:
            (folder / "card.json").write_text(text)
        record = {"chosen": [{"seconds": seconds}], "model": hash_files(folder) if seconds < 999 else "other"}
        kept = tmp_path / ".resume" / "ntu" / f"net-{seconds}" / f"fold_{fold}" / "finished.json"
        kept.parent.mkdir(parents=True)
        kept.write_text(json.dumps(record))
    assert costs.sum_minutes(tmp_path).to_dict() == {("ntu", "models/net/scratch"): 2.5}
