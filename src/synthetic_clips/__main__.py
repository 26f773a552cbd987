"""Command line: python -m synthetic_clips handwash FOLDER, or ntu FOLDER."""

from pathlib import Path
from typing import Annotated

import typer

from synthetic_clips import handwash as clips
from synthetic_clips import ntu as ntu_clips

app = typer.Typer(add_completion=False, help="Draw synthetic clips.")


@app.callback()
def main():
    """Draw synthetic clips."""


@app.command()
def handwash(
    folder: Annotated[Path, typer.Argument(help="Gets one folder for each of the twelve actions.")],
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    performers: Annotated[int, typer.Option(help="How many, 1 to 16.")] = clips.PERFORMERS,
    takes: Annotated[int, typer.Option(help="Of each performer, 1 or 2.")] = 2,
    action: Annotated[list[str] | None, typer.Option(help="A class; repeat for more. By default all.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds of each clip, by default 4.35 to 5.3.")] = None,
    processes: Annotated[int | None, typer.Option(help="By default one for each core.")] = None,
    copies: Annotated[int, typer.Option(help="Performers whose first wash is filed twice, as in the real set.")] = 2,
    montage: Annotated[Path | None, typer.Option(help="Save a picture of the first performer's clips here.")] = None,
):
    """Draw clips of hand washing; those that exist are kept."""
    try:
        paths = clips.write_clips(
            folder,
            seed=seed,
            performers=performers,
            takes=takes,
            actions=action,
            duration=duration,
            processes=processes,
        )
        paths += clips.file_twice(folder, copies)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if montage:
        clips.montage(folder).save(montage)
    print(f"{len(paths)} clips, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB in {folder}")


@app.command()
def ntu(
    folder: Annotated[Path, typer.Argument(help="Gets the clips, named as those of NTU RGB+D.")],
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    performer: Annotated[list[int] | None, typer.Option(help="A number; repeat for more. By default all.")] = None,
    action: Annotated[list[str] | None, typer.Option(help="A name or NTU's number; repeat for more.")] = None,
    also: Annotated[list[str] | None, typer.Option(
        help="An everyday action that the performers of the medical actions act, too; repeat for more.")] = None,
    frames: Annotated[int | None, typer.Option(help="Of each clip, by default 60 to 78.")] = None,
    processes: Annotated[int | None, typer.Option(help="By default one for each core.")] = None,
    montage: Annotated[Path | None, typer.Option(help="Save a picture of one performer's clips here.")] = None,
):
    """Draw clips of medical and everyday actions; those that exist are kept."""
    actions, more = (None if names is None else [int(name) if name.isdigit() else name for name in names]
                     for names in (action, also))
    try:
        paths = ntu_clips.write_clips(
            folder, seed=seed, actions=actions, performers=performer, frames=frames, processes=processes,
            also=more or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if montage:
        ntu_clips.montage(folder, performer[0] if performer else ntu_clips.TRAINING[0]).save(montage)
    print(f"{len(paths)} clips, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB in {folder}")


if __name__ == "__main__":
    app()
