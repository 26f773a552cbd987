"""The last stage: what the notebooks made, copied to `reports/` and led to from one page. Nothing is computed here."""

import json
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Annotated

import jinja2
import nbformat
import pandas as pd
import typer
import yaml
from markupsafe import Markup
from nbconvert import HTMLExporter

from health_actions import describe_versions
from health_actions.contents import STUDIES, Item, Study
from health_actions.data.frames import read_index
from health_actions.paths import find_root, read_yaml, write_text
from health_actions.provenance import Origin, Stage, describe_files, read_stages, trace_files

TEMPLATES = Path(__file__).parent / "templates"
PAGES = {"charts": "All charts and pictures", "audit": "Audit of clips and split",
         "structures": "How the networks are built"}
PACKAGES = ("torch", "torchvision", "lightning", "scikit-learn", "pandas", "papermill", "dvc")


def write_pages(notebooks: list[Path], output: Path, *, synthetic: bool, stages: dict[str, Stage]) -> list[dict]:
    """Turn executed notebooks into pages that open without network; returns their file names, titles and questions.

    Args:
        stages: notebook (file name without ending) -> its stage.
    """
    loader = jinja2.FileSystemLoader(TEMPLATES)
    exporter = HTMLExporter(extra_loaders=[loader], template_file="notebook.html.j2", exclude_input_prompt=True,
                            exclude_output_prompt=True)
    pages = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        # A notebook that runs once for each architecture is known by the end of its file's name.
        variant = re.search(r"training_(.+)$", path.stem)
        title += f": {variant[1]}" if variant else ""
        question = re.search(r"\*\*Question\.\*\* (.+)", notebook.cells[0].source)
        describe_pictures(notebook)
        html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "synthetic": synthetic,
                                                         "stage": stages.get(path.stem)})
        write_text(output / f"{path.stem}.html", html)
        pages.append({"file": f"{path.stem}.html", "title": title, "question": question[1] if question else ""})
    return pages


def describe_pictures(notebook: nbformat.NotebookNode) -> None:
    """Give each picture among a notebook's outputs a text for those who cannot see it: the heading that it is under."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = found[-1] if found else heading
        for output in cell.get("outputs", []):
            if "data" in output:
                output.metadata["alt"] = f"{heading}: picture made by the cell above"


def collect_study(root: Path, reports: Path, study: Study, *, profile: str, stages: dict[str, Stage],
                  origins: dict[str, Origin]) -> dict:
    """Copy one study's tables and figures, make its pages, and return what the index shows of it.

    `origins` are those of the files in `build/`, and get those of their copies in `reports/`.
    """
    build, target = root / "build" / study.name, reports / study.name
    has_errors = (build / "errors").is_dir()
    for kind in ("tables", "figures", "notebooks", *(["errors"] if has_errors else [])):
        shutil.rmtree(target / kind, ignore_errors=True)
        (target / kind).mkdir(parents=True)
    for source in sorted(build.glob("*/*")):
        kind = {".csv": "tables", ".svg": "figures", ".png": "figures"}.get(source.suffix)
        if kind and source.parent.name not in ("frames", "times"):
            copy_file(source, target / kind / source.name, root, reports, origins)
    if has_errors:
        copy_file(build / "errors" / "errors.html", target / "errors.html", root, reports, origins)
        for source in sorted((build / "errors" / "errors").glob("*")):  # there is none where nothing was misclassified
            copy_file(source, target / "errors" / source.name, root, reports, origins)
    index = read_index(build / "frames")
    usable, left_out = index[index["status"] == "ok"], index[index["status"] != "ok"]
    write_text(target / "tables" / "left_out.csv", left_out[["path", "reason"]].to_csv(index=False))
    splits = pd.read_csv(build / "annotations" / "splits.csv")
    shown = [entry for item in study.contents if (entry := show_item(item, study.name, reports, origins))]
    by_notebook = {Path(stage.notebook).stem: stage for stage in stages.values()
                   if stage.notebook and stage.notebook.startswith(f"build/{study.name}/")}
    synthetic = int(usable["synthetic"].sum())
    executed = sorted((build / "notebooks").glob("*.ipynb"))
    origins |= {f"{study.name}/notebooks/{path.stem}.html": Origin(by_notebook.get(path.stem), path.stem, None)
                for path in executed}
    conditions = {"always", *(["synthetic"] if synthetic else []), *(["laptop"] if profile == "laptop" else [])}
    return {
        "name": study.name, "title": study.title, "question": study.question, "has_errors": has_errors,
        "contents": {page: [entry for entry in shown if entry["page"] == page] for page in ("key", "tables", *PAGES)},
        "notebooks": write_pages(executed, target / "notebooks", synthetic=bool(synthetic), stages=by_notebook),
        "best": find_best(target / "tables", study), "agreement": count_agreement(target / "tables", study),
        "reasons": [text for when, text in study.reasons if when in conditions],
        "files": len(index), "usable": len(usable), "synthetic": synthetic, "left_out": left_out.to_dict("records"),
        "used": splits["clip"].nunique(), "source": count_source(build / "annotations" / "source_splits.csv"),
        "folds": splits["fold"].nunique(),
        "protocol": "given by the folders" if (usable["given_split"] != "").any()
        else _read_protocol(build / "notebooks" / f"{study.annotations}.ipynb"),
    }


def count_source(file: Path) -> int:
    """Clips that networks learn from before; 0 for a study that has none."""
    return pd.read_csv(file)["clip"].nunique() if file.is_file() else 0


def copy_file(source: Path, target: Path, root: Path, reports: Path, origins: dict[str, Origin]) -> None:
    """Copy a file from `build/` and note that its copy has the same origin."""
    shutil.copyfile(source, target)
    origin = origins.get(source.relative_to(root).as_posix())
    if origin:
        origins[target.relative_to(reports).as_posix()] = origin


def show_item(item: Item, study: str, reports: Path, origins: dict[str, Origin]) -> dict | None:
    """What the pages show of a table or figure; None when this run has not made it."""
    kind = "tables" if item.file.endswith(".csv") else "figures"
    path = f"{study}/{kind}/{item.file}"
    if not (reports / path).is_file():
        return None
    html = None
    if kind == "tables":
        table = pd.read_csv(reports / path)
        html = table.to_html(index=False, border=0, na_rep="-", float_format=_format_number)  # escaped by pandas
    return {**item._asdict(), "kind": kind, "html": html and Markup(html), "origin": origins.get(path),
            "anchor": f"{study}-{Path(item.file).stem}"}


def find_best(tables: Path, study: Study) -> dict | None:
    """The row that is best by validation: name, accuracy, low, high, clips, and the paper's best accuracy."""
    file, name, accuracy = study.best
    if not (tables / file).is_file():
        return None
    table = pd.read_csv(tables / file)
    row = table.loc[table["validation"].idxmax()]
    start = f", {row['start']}" if "start" in table else ""
    return {"name": f"{row[name]}{start}", "accuracy": row[accuracy], "low": row["low"], "high": row["high"],
            "clips": int(row["clips"]), "table": f"{study.name}-{Path(file).stem}"}


def count_agreement(tables: Path, study: Study) -> list[dict]:
    """For each table with published numbers: how many of them lie in, below or above the reproduced 95 % interval."""
    counts = []
    for item in study.contents:
        path = tables / item.file
        if item.file.endswith(".csv") and path.is_file() and "published_is" in (table := pd.read_csv(path)):
            said = table["published_is"].value_counts()
            counts.append({"title": item.title, "anchor": f"{study.name}-{path.stem}", "all": int(said.sum()),
                           **{word: int(said.get(word, 0)) for word in ("inside", "above", "below")}})
    return [entry for entry in counts if entry["all"]]


def _format_number(value: float) -> str:
    """Shares with three digits, small settings such as a learning rate as they are."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:g}"


def _read_protocol(notebook: Path) -> str:
    """The protocol that the annotation notebook ran with, from its injected parameters."""
    notebook = nbformat.read(notebook, as_version=4)
    lines = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("protocol = ")]
    return yaml.safe_load(lines[-1].partition("=")[2].partition("#")[0])


def list_seeds(stages: dict[str, Stage]) -> list:
    """Every seed among the parameters of the stages that ran."""
    def find(value, key=""):
        if isinstance(value, dict):
            return [seed for name, inner in value.items() for seed in find(inner, name)]
        return [value] if key == "seed" else list(value) if key == "seeds" else []

    found = [seed for stage in stages.values() for key, value in stage.parameters.items()
             for seed in find(value, key.rpartition(".")[2])]
    return sorted(set(found), key=str)


def main(reports: Annotated[Path | None, typer.Option(help="Where to write; default reports/.")] = None) -> None:
    """Write reports/ from build/."""
    root = find_root()
    reports = reports or root / "reports"
    try:
        profile, found = read_yaml(root / "params.yaml")["profile"], read_stages(root)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    stages = {name: stage for name, stage in found.items() if stage.notebook and (root / stage.notebook).is_file()}
    origins = trace_files(root, stages)
    origins |= {file.removeprefix("reports/"): origin for file, origin in origins.items()
                if file.startswith("reports/")}
    studies = [collect_study(root, reports, study, profile=profile, stages=stages, origins=origins)
               for study in STUDIES
               if (root / "build" / study.name / "notebooks").is_dir()]  # one of the two may be run alone
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                               lstrip_blocks=True)
    pages.filters["digits"] = lambda value: f"{value:.3f}"
    common = {"studies": studies, "profile": profile, "pages": PAGES, "stages": stages}
    for study in studies:
        for page, title in PAGES.items():
            file = reports / study["name"] / f"{page}.html"
            file.unlink(missing_ok=True)
            if study["contents"][page]:
                html = pages.get_template("items.html.j2").render(**common, study=study, page=page, title=title)
                write_text(file, html + "\n")
    write_text(reports / "provenance.html", pages.get_template("provenance.html.j2").render(**common) + "\n")
    index = pages.get_template("index.html.j2").render(
        **common, seeds=list_seeds(stages),
        versions=f"Python {platform.python_version()}, {describe_versions(*PACKAGES)}",
        machine=f"{platform.system()}, {platform.machine()}, {os.cpu_count()} processor cores")
    write_text(reports / "index.html", index + "\n")
    write_text(reports / "provenance.json", json.dumps(describe_files(reports, origins), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
