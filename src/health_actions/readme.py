"""The README's tables, copied from `reports/`: `python -m health_actions.readme` writes them between their marks."""

import re
from pathlib import Path

import pandas as pd
import typer

from health_actions.paths import find_root, write_text

MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_tables(text: str, reports: Path) -> str:
    """A README's text with every table between `<!-- table: NAME -->` and `<!-- end -->` as the reports have it.

    Raises:
        ValueError: for a name that is none of `TABLES`.
    """
    def fill(match: re.Match) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"the README asks for a table {match[2]!r}; known are {', '.join(TABLES)}")
        return match[1] + _write_rows(TABLES[match[2]](Path(reports))) + match[3]

    return MARK.sub(fill, text)


def _write_rows(table: pd.DataFrame) -> str:
    lines = [list(table), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _digits(values: pd.Series) -> list[str]:
    return ["-" if pd.isna(value) else f"{value:.3f}" for value in values]


def _interval(table: pd.DataFrame) -> list[str]:
    return [f"{row.low:.3f}-{row.high:.3f}" for row in table.itertuples()]


def show_architectures(reports: Path) -> pd.DataFrame:
    """Table 1 of study A, and the three streams of Table 5."""
    tables = [pd.read_csv(reports / "handwash" / "tables" / f"{name}.csv") for name in ("table_1", "table_5")]
    streams = tables[1][tables[1]["model"] == "three_stream"].rename(columns={"model": "architecture"})
    rows = pd.concat([tables[0], streams.assign(weights=streams["weights"] + ", frozen")], ignore_index=True)
    return pd.DataFrame({"architecture": rows["architecture"], "backbone's weights": rows["weights"],
                         "published": _digits(rows["published"]), "reproduced": _digits(rows["reproduced"]),
                         "95 % interval": _interval(rows), "clips": rows["clips"].astype(int)})


def show_networks(reports: Path) -> pd.DataFrame:
    """Figure 16 and Table 3 of study B: each network from both starts."""
    tables = reports / "ntu" / "tables"
    published = pd.read_csv(tables / "table_3.csv").set_index("model")["published_top1"]
    starts = pd.read_csv(tables / "figure_16.csv")
    scratch, rows = (starts[starts["start"] == start].reset_index(drop=True) for start in ("scratch", "pretrained"))
    return pd.DataFrame({"network": rows["model"], "published": _digits(rows["model"].map(published)),
                         "from scratch": _digits(rows["model"].map(scratch.set_index("model")["clip_top1"])),
                         "pretrained": _digits(rows["clip_top1"]), "95 % interval": _interval(rows),
                         "top-2": _digits(rows["clip_top2"]), "clips": rows["clips"].astype(int)})


TABLES = {"architectures": show_architectures, "networks": show_networks}


def main() -> None:
    """Write the README's tables anew."""
    root = find_root()
    readme = root / "README.md"
    write_text(readme, fill_tables(readme.read_text(encoding="utf-8"), root / "reports"))


if __name__ == "__main__":
    typer.run(main)
