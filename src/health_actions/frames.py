"""The sampled frames of the clips, as `health_actions.extraction` left them: an index and one small file a clip."""

from pathlib import Path

import numpy as np
import pandas as pd


def read_index(output: Path) -> pd.DataFrame:
    """Read the index that `extract_frames` wrote; recordings stay text, empty fields empty."""
    text = {name: str for name in ("clip", "path", "class", "recording", "scene", "given_split", "reason", "note")}
    return pd.read_csv(Path(output) / "index.csv", dtype=text, keep_default_na=False, na_values={"frames": [""]})


def list_sizes(output: Path) -> list[int]:
    """The sizes (pixels) at which `extract_frames` kept the clips."""
    index = read_index(output)
    first = index.loc[index["status"] == "ok", "clip"].iloc[0]
    with np.load(Path(output) / f"{first}.npz", allow_pickle=False) as arrays:
        return sorted(int(name) for name in arrays.files if name.isdigit())


def load_frames(output: Path, clip: str, size: int) -> np.ndarray:
    """The sampled frames of one clip: uint8 (length, size, size, 3), RGB.

    Raises:
        ValueError: when the clip was not extracted at that size; says at which it was.
    """
    with np.load(Path(output) / f"{clip}.npz", allow_pickle=False) as arrays:
        if str(size) not in arrays:
            sizes = ", ".join(name for name in arrays.files if name.isdigit())
            raise ValueError(f"{clip} was extracted at {sizes} pixels, not at {size}: add {size} to frames.sizes")
        return arrays[str(size)]
