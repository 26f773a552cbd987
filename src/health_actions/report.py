"""The last stage: what the notebooks made, copied to `reports/` and led to from one page. Nothing is computed here."""

import shutil
from pathlib import Path
from typing import Annotated

import jinja2
import nbformat
import pandas as pd
import typer
import yaml
from nbconvert import HTMLExporter

from health_actions.frames import read_index
from health_actions.paths import find_root, write_text

TEMPLATES = Path(__file__).parent / "templates"

HANDWASH_TABLES = {
    "table_1": (
        "Table 1: the architectures",
        "Published: accuracy on 77 validation clips of the real set. Reproduced: clip-level top-1 on the test clips of "
        "this run, with the number of clips and the 95 % interval. Weights: what the backbone started from, and "
        "whether it was trained."),
    "classes": (
        "Precision and recall of each action",
        "The architecture that is best by validation, on the test clips."),
    "audit": (
        "What the two sides of the split share",
        "Recordings, scenes and duplicates that test clips share with training or validation clips, fold by fold."),
}
HANDWASH_FIGURES = {
    "figure_1_classes.png": ("Figure 1: the classes", "One frame of each class."),
    "table_1_architectures.svg": (
        "Table 1 as a chart",
        "Test accuracy of each architecture with its 95 % interval, and the published validation accuracy."),
    "figure_6_confusions.svg": (
        "Figure 6: confusion matrix",
        "Test clips of the architecture that is best by validation; rows are predicted classes, columns actual ones."),
    "figure_5_learning_curves.svg": (
        "Figure 5: learning curves",
        "Loss and clip top-1 by epoch in training and validation; line: mean of the folds, band: all folds."),
    "precision_recall.svg": ("Precision and recall", "Of each action, as bars."),
    "figure_2_counts.svg": ("Figure 2: clips per class and split", "First fold."),
}


def write_pages(notebooks: list[Path], output: Path, *, synthetic: bool) -> list[dict]:
    """Turn executed notebooks into pages that open without network; returns their file names and titles."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    exporter = HTMLExporter(extra_loaders=[loader], template_file="notebook.html.j2", exclude_input_prompt=True,
                            exclude_output_prompt=True)
    pages = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        # A notebook that runs once for each architecture is known by the end of its file's name.
        variant = path.stem.partition("_training_")[2]
        title += f": {variant}" if variant else ""
        html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "synthetic": synthetic})
        write_text(output / f"{path.stem}.html", html)
        pages.append({"file": f"{path.stem}.html", "title": title})
    return pages


def collect_study(build: Path, reports: Path, *, name: str, title: str, question: str, tables: dict,
                  figures: dict) -> dict:
    """Copy one study's tables and figures, make its pages, and return what the index shows of it."""
    for kind in ("tables", "figures", "notebooks"):
        shutil.rmtree(reports / name / kind, ignore_errors=True)
        (reports / name / kind).mkdir(parents=True)
    for source in sorted([*(build / "evaluation").glob("*.csv"), *(build / "annotations").glob("*.csv")]):
        shutil.copyfile(source, reports / name / "tables" / source.name)
    for file in figures:
        shutil.copyfile(build / "figures" / file, reports / name / "figures" / file)
    index = read_index(build / "frames")
    usable, left_out = index[index["status"] == "ok"], index[index["status"] != "ok"]
    write_text(reports / name / "tables" / "left_out.csv", left_out[["path", "reason"]].to_csv(index=False))
    splits = pd.read_csv(build / "annotations" / "splits.csv")
    shown = [{"name": table, "title": heading, "text": text,
              "html": pd.read_csv(reports / name / "tables" / f"{table}.csv").to_html(
                  index=False, border=0, na_rep="-", float_format="{:.3f}".format)}
             for table, (heading, text) in tables.items()]
    return {
        "name": name, "title": title, "question": question, "tables": shown,
        "figures": [{"file": file, "title": heading, "text": text} for file, (heading, text) in figures.items()],
        "pages": write_pages(sorted((build / "notebooks").glob("*.ipynb")), reports / name / "notebooks",
                             synthetic=bool(usable["synthetic"].any())),
        "files": len(index), "usable": len(usable), "clips": len(usable), "synthetic": int(usable["synthetic"].sum()),
        "left_out": left_out.to_dict("records"), "used": splits["clip"].nunique(), "folds": splits["fold"].nunique(),
        "protocol": "given by the folders" if (usable["given_split"] != "").any() else _read_protocol(build),
    }


def _read_protocol(build: Path) -> str:
    """The protocol that the annotation notebook ran with, from its injected parameters."""
    notebook = nbformat.read(build / "notebooks" / "02_handwash_annotations.ipynb", as_version=4)
    lines = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("protocol = ")]
    return yaml.safe_load(lines[-1].partition("=")[2].partition("#")[0])


def main(reports: Annotated[Path | None, typer.Option(help="Where to write; default reports/.")] = None) -> None:
    """Write reports/ from build/."""
    root = find_root()
    reports = reports or root / "reports"
    study = collect_study(
        root / "build" / "handwash", reports, name="handwash", title="Study A: hand washing",
        question="Which of twelve hand-wash actions does a clip show? A person who uploads the clips of one wash can "
                 "then be told which actions are missing.",
        tables=HANDWASH_TABLES, figures=HANDWASH_FIGURES)
    profile = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["profile"]
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    for table in study["tables"]:
        table["html"] = jinja2.utils.markupsafe.Markup(table["html"])  # escaped by pandas already
    index = page.get_template("index.html.j2").render(studies=[study], profile=profile)
    write_text(reports / "index.html", index + "\n")


if __name__ == "__main__":
    typer.run(main)
