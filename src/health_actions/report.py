"""The last stage: what the notebooks made, copied to `reports/` and led to from one page. Nothing is computed here."""

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

from health_actions.contents import STUDIES
from health_actions.frames import read_index
from health_actions.paths import find_root, write_text

TEMPLATES = Path(__file__).parent / "templates"


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
        variant = re.search(r"training_(.+)$", path.stem)
        title += f": {variant[1]}" if variant else ""
        html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "synthetic": synthetic})
        write_text(output / f"{path.stem}.html", html)
        pages.append({"file": f"{path.stem}.html", "title": title})
    return pages


def collect_study(build: Path, reports: Path, *, name: str, title: str, question: str, annotations: str,
                  contents: list[tuple[str, str, str]]) -> dict:
    """Copy one study's tables and figures, make its pages, and return what the index shows of it; see `STUDIES`."""
    has_errors = (build / "errors").is_dir()
    for kind in ("tables", "figures", "notebooks", *(["errors"] if has_errors else [])):
        shutil.rmtree(reports / name / kind, ignore_errors=True)
        (reports / name / kind).mkdir(parents=True)
    for source in sorted(build.glob("*/*")):
        kind = {".csv": "tables", ".svg": "figures", ".png": "figures"}.get(source.suffix)
        if kind and source.parent.name not in ("frames", "times"):
            shutil.copyfile(source, reports / name / kind / source.name)
    if has_errors:
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
        "name": name, "title": title, "question": question, "contents": shown, "has_errors": has_errors,
        "pages": write_pages(sorted((build / "notebooks").glob("*.ipynb")), reports / name / "notebooks",
                             synthetic=bool(usable["synthetic"].any())),
        "files": len(index), "usable": len(usable), "clips": len(usable), "synthetic": int(usable["synthetic"].sum()),
        "left_out": left_out.to_dict("records"), "used": splits["clip"].nunique(), "folds": splits["fold"].nunique(),
        "protocol": "given by the folders" if (usable["given_split"] != "").any()
        else _read_protocol(build / "notebooks" / f"{annotations}.ipynb"),
    }


def _format_number(value: float) -> str:
    """Shares with three digits, small settings such as a learning rate as they are."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:g}"


def _read_protocol(notebook: Path) -> str:
    """The protocol that the annotation notebook ran with, from its injected parameters."""
    notebook = nbformat.read(notebook, as_version=4)
    lines = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("protocol = ")]
    return yaml.safe_load(lines[-1].partition("=")[2].partition("#")[0])


def main(reports: Annotated[Path | None, typer.Option(help="Where to write; default reports/.")] = None) -> None:
    """Write reports/ from build/."""
    root = find_root()
    reports = reports or root / "reports"
    studies = [collect_study(root / "build" / study["name"], reports, **study) for study in STUDIES
               if (root / "build" / study["name"] / "notebooks").is_dir()]  # one of the two may be run alone
    profile = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["profile"]
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    index = page.get_template("index.html.j2").render(studies=studies, profile=profile)
    write_text(reports / "index.html", index + "\n")


if __name__ == "__main__":
    typer.run(main)
