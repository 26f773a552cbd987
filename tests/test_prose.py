"""No accuracy is typed by hand: those in texts are computed, published, or held by a table of the report."""

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT

PACKAGE = ROOT / "src" / "health_actions"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("figures/*.py")])  # those that write texts of the report
TEMPLATES = sorted(PACKAGE.glob("templates/*.j2"))
PAGES = sorted((ROOT / "reports").glob("*.html"))

SHARE = r"(?:0?\.\d{2,}|1\.0{2,})"
PERCENT = r"\d+(?:\.\d+)?"
UNIT = r"(?:%|per\s?cent\b|(?:percentage\s)?points\b)"
FIGURE = re.compile(rf"""(?<![\w.])(?:
    (?P<low>{SHARE})\s?(?:-|\u2013|to)\s?(?P<high>{SHARE})(?!\w|\.\d)
    | (?P<low_percent>{PERCENT})\s?%?\s?(?:-|\u2013|to)\s?(?P<high_percent>{PERCENT})\s*{UNIT}
    | (?P<part>\d+)\s(?:of|out\sof)\s(?:(?:the|these|all)\s)?(?P<whole>\d+)(?![\w%]|\.\d|\s*{UNIT})
    | (?P<few>\d+)/(?P<many>\d+)(?=\s(?:\w+\s)?clips)
    | (?P<percent>{PERCENT})\s*{UNIT}
    | (?P<share>{SHARE})(?!\w|\.\d)
    )""", re.VERBOSE)

# What looks like an accuracy and is none, with the reason; a test tells entries that nothing needs any more.
ALLOWED = {
    r"\b95 %\s+(?:confidence\s+)?intervals?": "the level of confidence of every interval",
    r"\(95 %[,)]": "the same",
    r"\bp < 0\.05\b": "the level of significance that the cell compares with",
    r'"gain_p"\] < 0\.05': "the same in code",
    r"nearer, by more than 1 %": "how near two counts of operations may be; no accuracy",
    r"> 0\.01 \* shortcuts": "the same in code",
    r"\blearning_rate: [\d.]+": "a setting of params.yaml, quoted in the README",
    r"\d+ of \d+ files (?:could|can) be used": "counted by each study's first notebook, of files that no table lists",
}


@dataclass
class Held:
    """The numbers of tables: shares of 1 but for ends of intervals; and every number, row by row."""

    values: list[float]
    rows: list[list[float]]


def read_tables(tables: list[pd.DataFrame], published: list = ()) -> Held:
    """What result tables and published numbers hold.

    Tables of single clips, epochs and files are left out: among thousands of probabilities every number has its like.
    """
    held = Held([], [])
    for table in tables:
        if {"clip", "epoch", "path"} & set(table.columns):
            continue
        shares = [name for name in table.select_dtypes("float") if not re.search("low|high", str(name))]
        held.values += table[shares].stack().dropna().tolist()
        held.rows += [[value for value in row if pd.notna(value)]
                      for row in table.select_dtypes("number").to_numpy().tolist()]
    rest = [*published]
    while rest:
        inner = rest.pop()
        children = list(inner.values()) if isinstance(inner, dict) else inner
        held.rows.append([value for value in children if isinstance(value, int | float) and pd.notna(value)])
        held.values += [value for value in held.rows[-1] if isinstance(value, float)]
        rest += [value for value in children if isinstance(value, dict | list)]
    return held


def is_close(written: str, numbers: list[float], *, percent: bool) -> bool:
    """Whether one of the numbers is the written one, at its precision.

    A share with fewer than three digits has to be held as it is: rounded so far, some number of some table fits to
    nearly each of them.
    """
    decimals = len(written.partition(".")[2]) + 2 * percent
    distance = 0.5 * 10**-decimals if decimals >= 3 else 0
    value = float(written) / (100 if percent else 1)
    return bool(len(numbers)) and bool((np.abs(np.abs(numbers) - value) <= distance + 1e-9).any())


def is_held(figure: re.Match, held: Held) -> bool:
    """Whether tables hold a figure: a share alone, both ends of a range in one row, a part and its whole in one row."""
    found = {name: text for name, text in figure.groupdict().items() if text}
    if {"low", "low_percent"} & set(found):
        percent = "low_percent" in found
        return any(all(is_close(end, row, percent=percent) for end in found.values()) for row in held.rows)
    if {"part", "few"} & set(found):
        part, whole = map(int, found.values())
        parts = (part, max(whole - part, 0))  # what is right, or what is wrong
        return any(whole in row and any(number in row or is_close(f"{number / whole:.3f}", row, percent=False)
                                        for number in parts) for row in held.rows if whole)
    return is_close(*found.values(), held.values, percent="percent" in found)


def find_figures(text: str, held: Held) -> list[str]:
    """What looks like an accuracy or another share in a text, is not allowed above, and no table holds."""
    for pattern in ALLOWED:
        text = re.sub(pattern, "...", text)
    return [figure[0] for figure in FIGURE.finditer(text) if not is_held(figure, held)]


def list_strings(code: str) -> list[str]:
    """The string literals of a piece of Python; what is computed in an f-string stands there as {}."""
    found = []

    class Reader(ast.NodeVisitor):
        def visit_Constant(self, node):
            if isinstance(node.value, str):
                found.append(re.sub(r"\{[^{}]*\}", "{}", node.value))  # fields of str.format

        def visit_JoinedStr(self, node):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self.visit(part.value)  # and not its format, such as .1%

    Reader().visit(ast.parse(code))
    return found


def list_comments(code: str) -> list[str]:
    return [token.string for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if token.type == tokenize.COMMENT]


def list_numbers(code: str) -> list[str]:
    """The number literals of a piece of Python, each with what stands around it."""
    lines = code.splitlines()
    return [lines[token.start[0] - 1][max(0, token.start[1] - 12):token.end[1] + 12]
            for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if token.type == tokenize.NUMBER and re.fullmatch(SHARE, token.string)]


def read_notebook(path: Path) -> list[str]:
    """Every text of a notebook, and numbers in its code but its parameters, which are those of params.yaml."""
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        else:
            numbers = [] if "parameters" in cell.metadata.get("tags", []) else list_numbers(cell.source)
            texts += [*list_strings(cell.source), *list_comments(cell.source), *numbers]
    return texts


def read_html(html: str) -> list[str]:
    """The texts of a page outside its tables, and what its pictures and titles say."""
    page = BeautifulSoup(html, "html.parser")
    for part in page(["style", "script", "table"]):
        part.decompose()
    attributes = [element[name] for element in page(True) for name in ("alt", "title", "aria-label", "content")
                  if element.has_attr(name)]
    return [" ".join(page.get_text(" ").split()), *attributes]


def read_template(text: str) -> list[str]:
    """The texts of a template, tables too; what is computed stands there as {}."""
    text = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "{}", text, flags=re.DOTALL)
    return read_html(re.sub(r"</?table\b", "<div", text))


def read_readme(text: str) -> str:
    """The README without its tables."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("|"))


def read_source(path: Path) -> list[str]:
    """The texts of a notebook, a module or a template."""
    if path.suffix == ".ipynb":
        return read_notebook(path)
    text = path.read_text(encoding="utf-8")
    return read_template(text) if path.suffix == ".j2" else [*list_strings(text), *list_comments(text)]


@pytest.fixture(scope="module")
def published() -> Held:
    """The papers' numbers, which no run changes."""
    return read_tables([], [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "published").glob("*.yaml"))])


@pytest.fixture(scope="module")
def held(published) -> Held:
    """The numbers of the report's tables and of the papers."""
    tables = read_tables([pd.read_csv(path) for path in sorted((ROOT / "reports").glob("*/tables/*.csv"))])
    return Held(tables.values + published.values, tables.rows + published.rows)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *MODULES, *TEMPLATES], ids=lambda path: path.name)
def test_what_makes_the_report_has_no_figure_typed_by_hand(path, published):
    """Not even one that a table holds today: the next run may change it. A number of the papers stays."""
    assert not [(figure, text[:200]) for text in read_source(path) for figure in find_figures(text, published)]


def test_every_figure_in_the_readme_is_one_of_a_table(held):
    assert not find_figures(read_readme((ROOT / "README.md").read_text(encoding="utf-8")), held)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_figure_in_a_pages_prose_is_one_of_a_table(path, held):
    assert not [figure for text in read_html(path.read_text(encoding="utf-8")) for figure in find_figures(text, held)]


def test_what_is_allowed_is_needed():
    texts = [text for path in (*NOTEBOOKS, *MODULES, *TEMPLATES) for text in read_source(path)]
    texts += [(ROOT / "README.md").read_text(encoding="utf-8")]
    texts += [text for path in PAGES for text in read_html(path.read_text(encoding="utf-8"))]
    assert not [pattern for pattern in ALLOWED if not any(re.search(pattern, text) for text in texts)]


SMALL = read_tables([
    pd.DataFrame({"model": ["a", "b"], "reproduced": [0.8917, 0.25], "low": [0.846, 0.2], "high": [0.925, 0.31],
                  "clips": [240, 48]}),
    pd.DataFrame({"switch": ["c"], "difference": [-0.125]}),
    pd.DataFrame({"clip": ["one"], "probability": [0.873]}), pd.DataFrame({"epoch": [1], "top1": [0.871]}),
], [{"table_1": {"d": 0.584}, "classes": {"e": [0.79, 0.98]}, "clips": {"total": 711, "validation": 77}}])


@pytest.mark.parametrize(("text", "expected"), [
    ("It is right on 0.873 of them.", ["0.873"]),
    ("It is right on 87 % of the clips.", ["87 %"]),
    ("87% of the clips", ["87%"]),
    ("87.3 per cent, or 87 percent", ["87.3 per cent", "87 percent"]),
    ("**0.873**, .87 and (0.87)", ["0.873", ".87", "0.87"]),
    ("3 points better, 12.4 points", ["3 points", "12.4 points"]),
    ("210 of 240 clips", ["210 of 240"]),
    ("13 out of the 48", ["13 out of the 48"]),
    ("210/240 test clips", ["210/240"]),
    ("0.85 to 0.93, 0.846-0.31", ["0.85 to 0.93", "0.846-0.31"]),
    ("84 % to 93 %", ["84 % to 93 %"]),
    ("0.846 at least", ["0.846"]),  # the end of an interval is no accuracy
    ("89 % are right", ["89 %"]),  # 0.892, rounded too far
    ("always: 1.00", ["1.00"]),
])
def test_a_planted_figure_is_found(text, expected):
    assert find_figures(text, SMALL) == expected


@pytest.mark.parametrize("text", [
    "0.892, 89.2 %, 0.8917 or 89.17 per cent", "25 % or 0.25", "12.5 points worse", "0.584 and 58.4 %", "0.79 of both",
    "0.846-0.925, 0.846\u20130.925, 84.6 % to 92.5 %, 0.846 to 0.925", "214 of 240 clips", "12 of 48, so 36 of 48",
    "77 of the 711", "a 95 % interval of 0.846-0.925", "version 0.10.2, v0.87, 1.0.12, 0.5, page 2 of the paper",
    "Figures 2, 3, 7-14 and 16-20 of study B", "4 of them", "2 x 0.5 seconds",
])
def test_a_figure_that_a_table_holds_passes(text):
    assert find_figures(text, SMALL) == []


def test_figures_of_a_notebook_are_found_wherever_they_stand(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("It reaches 0.873."),
             nbformat.v4.new_code_cell("learning_rate = 0.001", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("share = 0.874  # up from 0.875\n"
                                       "Markdown(f'{share:.1%} or {100 * share:.0f} % of '\n"
                                       "         '87 % of the clips, ' + '{:.2%}'.format(share))\n"
                                       "Markdown(f'{\"0.876\" if share > 0.877 else share:.3f}')")]
    path = tmp_path / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    found = {figure for text in read_notebook(path) for figure in find_figures(text, SMALL)}
    assert found == {"0.873", "0.874", "0.875", "87 %", "0.876"}


def test_figures_of_a_page_are_found_outside_its_tables():
    html = ("<style>p { width: 87% }</style><p>It is <b>0.873</b> <i style='width: 86%'>of all</i>, {{ '%.2f' }}</p>"
            "<table><td>0.874</table><img alt='88 % of the clips' width='100%'>{% if share > 0.875 %}{% endif %}")
    found = {name: [figure for text in read(html) for figure in find_figures(text, SMALL)]
             for name, read in (("page", read_html), ("template", read_template))}
    assert found["template"] == ["0.873", "0.874", "88 %"] and set(found["page"]) >= {"0.873", "88 %"}
    assert "0.874" not in found["page"]


def test_the_readme_is_checked_outside_its_tables():
    assert find_figures(read_readme("It is 0.873.\n\n| a | 0.874 |\n|---|---|\n| b | 0.875 |\n"), SMALL) == ["0.873"]


def test_the_reports_own_tables_tell_figures_apart(held):
    """A figure passes if a table holds it, and most of those that none holds are found."""
    shares = [f"0.{number:03d}" for number in range(1000)]
    found = [share for share in shares if find_figures(f"It is {share}.", held)]
    rounded = {f"{value:.3f}" for value in held.values if 0 <= value < 1}
    assert set(shares) - set(found) >= rounded & set(shares) and len(found) > 600
