"""Do the results in `reports/` still follow from the files at hand? `python -m health_actions.verify`; no stage runs.

DVC compares files, parameters and commands with dvc.lock; reports/provenance.json tells which stage made which file of
`reports/`. What is not in git (data/, build/) need not be at hand: then the hashes in dvc.lock and data.dvc must agree.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import networkx
import typer
import yaml
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage
from dvc_data.hashfile.tree import Tree

from health_actions.paths import find_root

LOCK, DATA, MANIFEST = "dvc.lock", "data.dvc", "reports/provenance.json"
AGAIN = "Undo the change, or run what depends on it: make repro"
BACK = "Take the committed one: git checkout -- {}; or make it again: make repro"
CLIPS = "Take the embedded clips: dvc checkout --force data.dvc; or, if these are yours: make repro"
NOTHING = "not there"  # a value that params.yaml has not or had not
SHOWN = 4  # names of a list, where not all are asked for


@dataclass
class Finding:
    """Something stale or altered: what, why, what to do, and which stages and files of reports/ it touches."""

    item: str
    reason: str
    remedy: str
    stages: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def describe(self, shown: int | None = SHOWN) -> str:
        """One line, with at most `shown` names of stages and of files (None: all)."""
        lists = []
        for kind, names in (("Stages", self.stages), ("Results", self.files)):
            rest = len(names) - len(names[:shown])
            lists += [f"{kind}: {', '.join(names[:shown])}" + (f" and {rest} more" if rest else "")] if names else []
        return ". ".join([f"{self.item}: {self.reason}", *lists, self.remedy])


def overlap(path: str, other: str) -> bool:
    """Whether two paths are the same or one lies in the other."""
    return f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")


def compare_folder(folder: Path, known: dict[str, str]) -> dict[str, str]:
    """Files below a folder that are "altered", "missing" or "extra", given the MD5 of each that should be there."""
    at_hand = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found = {name: "extra" if name in at_hand else "missing" for name in known.keys() ^ at_hand.keys()}
    for name in known.keys() & at_hand.keys():
        if hashlib.md5(at_hand[name].read_bytes()).hexdigest() != known[name]:
            found[name] = "altered"
    return dict(sorted(found.items()))


def compare_values(key: str, old: object, new: object) -> dict[str, str]:
    """Dotted name -> what it is and was, for every value that differs in a section of params.yaml."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {name: text for part in {**old, **new} for name, text in compare_values(
            f"{key}.{part}", old.get(part, NOTHING), new.get(part, NOTHING)).items()}
    return {} if old == new else {key: f"is {str(new)[:60]}, was {str(old)[:60]}"}


def read_listing(repo: Repo, out: Output) -> Tree | None:
    """The files of a folder that DVC keeps, from its cache or storage/; None where there is no (undamaged) listing."""
    stores = [repo.cache.local]
    with suppress(DvcException):  # no storage is configured
        stores += [repo.cloud.get_remote_odb()] if out.can_push else []
    for store in stores:
        with suppress(OSError):
            content = store.fs.cat_file(store.oid_to_path(out.hash_info.value))
            if f"{hashlib.md5(content).hexdigest()}.dir" == out.hash_info.value:
                return Tree.load(store, out.hash_info)
    return None


class Comparison:
    """The project's stages beside the files at hand; what differs goes to `found`.

    Args:
        repo: the project, as DVC reads it.
        makers: file of reports/, from the project's root -> stage that made it.
        found: item -> what is known to differ.
    """

    def __init__(self, repo: Repo, makers: dict[str, str], found: dict[str, Finding]):
        self.repo, self.root, self.makers, self.found = repo, Path(repo.root_dir), makers, found
        self.stages = list(repo.index.stages)
        self.outs = {self.locate(out): out for stage in self.stages for out in stage.outs}
        self.listings = {item: read_listing(repo, out) for item, out in self.outs.items()
                         if out.use_cache and out.hash_info and out.hash_info.isdir}
        self.recorded = Tree()  # every file of every output, as far as it is known
        for item, out in self.outs.items():
            listing = self.listings.get(item)
            for key, _, value in [((), None, out.hash_info)] if listing is None else listing:
                self.recorded.add((*item.split("/"), *key), None, value)

    def locate(self, entry: Output | Stage) -> str:
        """The path of an output, a dependency or a file of stages, from the project's root."""
        path = entry.fs_path if isinstance(entry, Output) else entry.path
        return Path(os.path.relpath(path, self.root)).as_posix()

    def name(self, stage: Stage) -> str:
        return getattr(stage, "name", None) or self.locate(stage)

    def list_readers(self, item: str) -> set[Stage]:
        return {stage for stage in self.stages for dep in stage.deps if overlap(self.locate(dep), item)}

    def add(self, item: str, reason: str, remedy: str, readers: set[Stage], maker: Stage | None = None) -> None:
        """Note an item once, with the stage that made it, those that read it and all that depend on these."""
        downstream = (networkx.ancestors(self.repo.index.graph, stage) for stage in readers)
        touched = {self.name(stage) for stage in readers.union({maker} - {None}, *downstream)}
        finding = self.found.setdefault(item, Finding(item, reason, remedy.format(item)))
        finding.stages = [name for name in map(self.name, self.stages) if name in touched.union(finding.stages)]
        finding.files = sorted((file for file, stage in self.makers.items() if stage in finding.stages),
                               key=lambda file: (finding.stages.index(self.makers[file]), file))

    def run(self) -> None:
        """Note what differs: outputs first, so that an altered one is not named again by those that read it."""
        if MANIFEST not in self.outs:
            self.add(MANIFEST, "no stage's output in dvc.yaml, so nothing tells if it is altered", AGAIN, set())
        for item, out in self.outs.items():
            if out.stage.is_data_source and item in self.listings:
                self.check_data(item, out)
            elif out.stage.is_data_source or self.has_run(out.stage):
                self.check_output(item, out)
        for stage in self.stages:
            if self.has_run(stage):
                self.check_stage(stage)
            elif not stage.is_data_source:
                self.add(f"dvc.yaml: {stage.name}", "dvc.lock has no run of it", "Run it: make repro", {stage})

    def has_run(self, stage: Stage) -> bool:
        return any(entry.hash_info for entry in [*stage.deps, *stage.outs])

    def check_data(self, item: str, out: Output) -> None:
        """Clips that are not those of data.dvc."""
        if self.listings[item] is None:
            self.add(self.name(out.stage), f"no listing {out.hash_info.value} of {item}/ in DVC's cache or storage/",
                     BACK, self.list_readers(item))
        elif out.exists and out.workspace_status():
            listing = {"/".join(key): value.value for key, _, value in self.listings[item]}
            for file, reason in compare_folder(self.root / item, listing).items():
                file = f"{item}/{file}"
                stale = {stage for stage in self.list_readers(file) for dep in stage.deps
                         if overlap(self.locate(dep), file) and dep.workspace_status()}
                # Where stages ran on these very clips, data.dvc is what is old; `check_dependency` tells.
                if stale or not self.list_readers(file):
                    self.add(file, f"{reason}, compared with {self.name(out.stage)}", CLIPS, stale)

    def check_output(self, item: str, out: Output) -> None:
        """A stage's output that is at hand and another, or in git and missing; files of reports/ are known already."""
        if not any(overlap(item, other) for other in self.found) and (
                not out.hash_info or (out.exists or not out.use_cache) and out.workspace_status()):
            self.add(item, f"not as {self.name(out.stage)} made it (dvc.lock)",
                     "Make it again: make repro" if out.use_cache else BACK, self.list_readers(item), out.stage)

    def check_dependency(self, stage: Stage, item: str, dep: Output) -> None:
        """A file or folder that is not what the stage ran on: at hand, or by what dvc.lock says of its making."""
        outs = {name: out for name, out in self.outs.items() if overlap(name, item)}
        listed = all(self.listings.get(name, True) is not None for name in outs)
        if dep.hash_info and outs and (listed or item in outs) and all(out.hash_info for out in outs.values()):
            made = self.recorded.get_obj(self.repo.cache.local, tuple(item.split("/")))
            if dep.hash_info.value != (outs[item].hash_info.value if item in outs else made and made.oid):
                makers = ", ".join(dict.fromkeys(self.name(out.stage) for out in outs.values()))
                self.add(item, f"{stage.name} ran on another version (dvc.lock) than that of {makers}", AGAIN, {stage})
        if not dep.hash_info:
            self.add(item, f"{stage.name} has not run since it depends on it (dvc.lock)", AGAIN, {stage})
        elif not dep.exists and not any(out.use_cache for out in outs.values()):
            self.add(item, "missing", BACK, {stage})
        elif dep.exists and dep.workspace_status() and all(out.exists for out in outs.values()):
            if not any(overlap(item, other) for other in self.found.keys() - {item}):
                self.add(item, "altered", AGAIN, {stage})

    def check_stage(self, stage: Stage) -> None:
        """A stage's command, parameters and files."""
        if stage.changed_stage():
            self.add(f"dvc.yaml: {stage.name}", "not the command that was run (dvc.lock)", AGAIN, {stage})
        for dep in stage.deps:
            if isinstance(dep, ParamsDependency):
                old, new = ({key: values.get(key, NOTHING) for key in dep.params}
                            for values in (dep.hash_info.value or {}, dep.read_params()))
                for name, text in compare_values("", old, new).items():
                    self.add(f"{self.locate(dep)}: {name[1:]}", text, AGAIN, {stage})
            else:
                self.check_dependency(stage, self.locate(dep), dep)


def read_part(root: Path, item: str, pick: Callable, found: dict[str, Finding]) -> object:
    """What `pick` takes from the text of a file; None, and noted, where that is missing or damaged."""
    try:
        return pick((root / item).read_text(encoding="utf-8"))
    except FileNotFoundError:
        found[item] = Finding(item, "missing", BACK.format(item))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        found[item] = Finding(item, "damaged", BACK.format(item))


def check_reports(root: Path, files: dict[str, tuple[str, str]], found: dict[str, Finding]) -> None:
    """Note files of reports/ that are not as their stage made them; `files` has the MD5 and the stage of each."""
    for name, reason in compare_folder(root / "reports", {name: md5 for name, (md5, _) in files.items()}).items():
        item = f"reports/{name}"
        if item != MANIFEST:
            remedy = "Remove it: no stage made it" if reason == "extra" else BACK.format(item)
            found[item] = Finding(item, reason, remedy, [files[name][1]] if name in files else [], [item])


def verify(root: Path) -> list[Finding]:
    """Compare the results in reports/, and all that they depend on, with what dvc.lock and provenance.json say.

    Args:
        root: the project's folder.

    Returns:
        What is stale, altered, missing or damaged; nothing where every result holds.
    """
    found = {}
    files = read_part(root, MANIFEST, lambda text: {
        name: (entry["md5"], entry["stage"]) for name, entry in json.loads(text)["files"].items()}, found) or {}
    if MANIFEST not in found:
        check_reports(root, files, found)
    read_part(root, LOCK, len, found)
    read_part(root, DATA, lambda text: {out["path"]: out["md5"] for out in yaml.safe_load(text)["outs"]}["data"], found)
    if {LOCK, DATA} & found.keys():
        return list(found.values())
    makers = {f"reports/{name}": stage for name, (_, stage) in files.items()}
    expected = Exception  # at first: DVC has no class of its own for what a damaged file makes it raise
    try:
        with Repo(str(root)) as repo, repo.lock:
            comparison = Comparison(repo, makers, found)
            expected = DvcException
            comparison.run()
    except expected as error:
        text = " ".join(f"{'' if isinstance(error, DvcException) else type(error).__name__} {error}".split())
        found["DVC"] = Finding("DVC", f"cannot read the project: {text}", "See what is not as committed: git status")
    return list(found.values())


def main(full: Annotated[bool, typer.Option("--full", help="Name every stage and file affected.")] = False) -> None:
    """Tell whether each result in reports/ still follows from the files at hand."""
    try:
        findings = verify(find_root())
    except OSError as error:
        findings = [Finding("verify", str(error), "Nothing was compared")]
    for finding in findings:
        print(finding.describe(None if full else SHOWN))
    stages, files = ({name for finding in findings for name in getattr(finding, kind)} for kind in ("stages", "files"))
    print(f"verify: {len(findings)} stale or altered; {len(stages)} stages and {len(files)} files of reports/ affected")
    raise typer.Exit(bool(findings))


if __name__ == "__main__":
    typer.run(main)
