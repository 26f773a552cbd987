"""The last stage: what the notebooks made, copied to `reports/` and led to from one page. Nothing is computed here."""

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

from health_actions.frames import read_index
from health_actions.paths import find_root, write_text

TEMPLATES = Path(__file__).parent / "templates"

# What the index shows of study A, in this order: the file in tables/ or figures/, its heading, and what it holds.
HANDWASH_CONTENTS = [
    ("figure_1_classes.png", "Figure 1: the classes", "One frame of each class."),
    ("figure_2_counts.svg", "Figure 2: clips per class and split", "First fold."),
    ("table_1.csv", "Table 1: the architectures",
     "Published: accuracy on 77 validation clips of the real set. Reproduced: clip-level top-1 on the test clips of "
     "this run, with the number of clips and the 95 % interval. Weights: what the backbone started from, and whether "
     "it was trained. EfficientNet-Lite0 and the 3-D ResNet-18 are not the paper's."),
    ("table_1_architectures.svg", "Table 1 as a chart",
     "Test accuracy of each architecture with its 95 % interval, and the published validation accuracy."),
    ("table_2.csv", "Table 2: batch size and learning rate",
     "The best architecture of Table 1 by validation (the paper: AlexNet). Published: validation accuracy. Validation "
     "is what a setting is chosen by, reproduced the accuracy on test clips."),
    ("table_2_grid.svg", "Table 2 as heat maps", "Validation accuracy, published and reproduced."),
    ("table_3.csv", "Table 3: the size of the frames",
     "Published: validation accuracy and minutes of training. Operations: thousand million multiply-adds for one clip. "
     "This machine's own times are not part of the report, since they differ from run to run: make times."),
    ("table_3_sizes.svg", "Table 3 as a chart", "Test accuracy at each size with its 95 % interval."),
    ("table_4.csv", "Table 4: augmentation",
     "Pixel change: mean change of a pixel, of 255, in a clip that is augmented. Mirrored clips get the label of the "
     "other hand. The published row of translation most likely had none: its code did not know the name."),
    ("table_4_augmented_frames.png", "What each augmentation does",
     "Frames of one training clip, unchanged and changed."),
    ("table_4_augmentation.svg", "Table 4 as a chart", "Test accuracy with each augmentation and its 95 % interval."),
    ("table_5.csv", "Table 5: three streams against one",
     "Published: test accuracy, the three-stream one on other clips. Reproduced: all on the same test clips. The rows "
     "with a colon are the streams on their own."),
    ("table_5_streams.png", "What the three streams see", "Frames, optical flow and oriented gradients of one clip."),
    ("table_5_streams.svg", "Table 5 as a chart", "Test accuracy of each model and stream with its 95 % interval."),
    ("figure_5_learning_curves.svg", "Figure 5: learning curves",
     "Loss and clip top-1 by epoch in training and validation; line: mean of the folds, band: all folds."),
    ("figure_6_confusions.svg", "Figure 6: confusion matrix",
     "Test clips of the architecture that is best by validation; rows are predicted classes, columns actual ones."),
    ("figure_6_published.svg", "Figure 6 as published", "The paper's own test clips."),
    ("classes.csv", "Precision and recall of each action", "The architecture that is best by validation, test clips."),
    ("precision_recall.svg", "Precision and recall as a chart", "Of each action, as bars."),
    ("figure_7.png", "Figure 7: a misclassified clip",
     "Above the clip, in the middle what the model looked at, below a clip of the class that it took it for."),
    ("figure_8.png", "Figure 8: a misclassified clip", "As Figure 7."),
    ("figure_9.png", "Figure 9: a misclassified clip", "As Figure 7."),
    ("saliency.svg", "Does the model look at the hands?",
     "Share of the saliency that lies where something moves, against the share of the picture that moves."),
    ("switches.csv", "What the mistakes of the paper's code cost",
     "One switched on at a time. Difference: to the base, in shares of 1; lowest and highest over the repeats."),
    ("switches.svg", "The mistakes as a chart", "Difference to the base in points; lines: span of the repeats."),
    ("protocols.csv", "Protocols side by side",
     "The same architecture when clips are split at random within classes (the paper), by performer and by scene."),
    ("protocols.svg", "Protocols as a chart", "Each seed with its 95 % interval; bars: means over the seeds."),
    ("mcnemar.csv", "The first two architectures",
     "McNemar's exact test of the two best of Table 1 by validation: clips that both, one or neither has right."),
    ("audit.csv", "What the two sides of the split share",
     "Recordings, scenes and duplicates that test clips share with training or validation clips, fold by fold."),
]


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


def collect_study(build: Path, reports: Path, *, name: str, title: str, question: str,
                  contents: list[tuple[str, str, str]]) -> dict:
    """Copy one study's tables and figures, make its pages, and return what the index shows of it."""
    for kind in ("tables", "figures", "notebooks", "errors"):
        shutil.rmtree(reports / name / kind, ignore_errors=True)
        (reports / name / kind).mkdir(parents=True)
    for source in sorted(build.glob("*/*")):
        kind = {".csv": "tables", ".svg": "figures", ".png": "figures"}.get(source.suffix)
        if kind and source.parent.name not in ("frames", "times"):
            shutil.copyfile(source, reports / name / kind / source.name)
    shutil.copyfile(build / "errors" / "errors.html", reports / name / "errors.html")
    if (build / "errors" / "errors").is_dir():  # there is none where nothing was misclassified
        shutil.copytree(build / "errors" / "errors", reports / name / "errors", dirs_exist_ok=True)
    index = read_index(build / "frames")
    usable, left_out = index[index["status"] == "ok"], index[index["status"] != "ok"]
    write_text(reports / name / "tables" / "left_out.csv", left_out[["path", "reason"]].to_csv(index=False))
    splits = pd.read_csv(build / "annotations" / "splits.csv")
    shown = []
    for file, heading, text in contents:
        if (reports / name / "figures" / file).is_file():
            shown.append({"file": file, "title": heading, "text": text, "html": None})
        elif (reports / name / "tables" / file).is_file():
            table = pd.read_csv(reports / name / "tables" / file)
            html = table.to_html(index=False, border=0, na_rep="-", float_format=_format_number)
            shown.append({"file": file, "title": heading, "text": text, "html": Markup(html)})  # escaped by pandas
    return {
        "name": name, "title": title, "question": question, "contents": shown,
        "pages": write_pages(sorted((build / "notebooks").glob("*.ipynb")), reports / name / "notebooks",
                             synthetic=bool(usable["synthetic"].any())),
        "files": len(index), "usable": len(usable), "clips": len(usable), "synthetic": int(usable["synthetic"].sum()),
        "left_out": left_out.to_dict("records"), "used": splits["clip"].nunique(), "folds": splits["fold"].nunique(),
        "protocol": "given by the folders" if (usable["given_split"] != "").any() else _read_protocol(build),
    }


def _format_number(value: float) -> str:
    """Shares with three digits, small settings such as a learning rate as they are."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:g}"


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
        contents=HANDWASH_CONTENTS)
    profile = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["profile"]
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    index = page.get_template("index.html.j2").render(studies=[study], profile=profile)
    write_text(reports / "index.html", index + "\n")


if __name__ == "__main__":
    typer.run(main)
