"""Who is trained on and who is tested on: the protocols, and the clips that stand in a set twice."""

import hashlib
import warnings

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

SUBSETS = ["training", "validation", "testing"]
# What no two subsets may share under each protocol; the column of the clips' table.
PROTOCOLS = {"stratified": None, "by_performer": "recording", "by_scene": "scene", "published": None}
# Protocols whose test clips are fixed (Shahroudy et al., 2016): the column, and those of its values to train with.
NTU_PROTOCOLS = {
    "cross_subject": ("recording", [f"P{number:03d}" for number in (
        1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)]),
    "cross_view": ("scene", ["C002", "C003"]),
}
ALIKE = 100  # clips with one and the same signature of which every pair is listed
ROWS, PAIRS = 64, 1024  # compared at a time: memory stays flat


def make_splits(clips: pd.DataFrame, *, protocol: str, folds: int, test_on: str = "every_fold",
                seed: int = 0) -> pd.DataFrame:
    """Put every clip into training, validation or testing.

    The set is cut into `folds` parts with the classes spread evenly. Each part is the test set once and the next one
    picks the epoch meanwhile, so that every clip is tested on by a model that neither learned nor was chosen from it.
    A split that the clips' own folders give is taken as it is instead.

    Args:
        clips: one row a clip, with clip, class, recording, scene and given_split.
        protocol: "stratified" (classes balanced, nothing else; "published" is another name of it, since both papers
            split so), "by_performer" (no recording on two sides), "by_scene" (no scene on two sides), or NTU's own
            "cross_subject" (listed performers train) and "cross_view" (cameras 2 and 3 train), which make one fold;
            their validation clips are those of a fifth of the training performers.
        folds: number of parts, at least 3; fewer are made where there are fewer recordings or scenes.
        test_on: "every_fold", or "first_fold" for one split.
        seed: of the cut.

    Returns:
        One row a clip and fold: clip, class, recording, scene (and take where there is one), fold (from 1), subset.

    Raises:
        ValueError: for an unknown protocol, or when there are too few recordings, scenes or clips to test on.
    """
    if protocol not in {**PROTOCOLS, **NTU_PROTOCOLS}:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join({**PROTOCOLS, **NTU_PROTOCOLS})}")
    if test_on not in ("every_fold", "first_fold"):
        raise ValueError(f"test_on must be every_fold or first_fold, found {test_on!r}")
    if folds < 3:
        raise ValueError(f"folds must be at least 3 (training, validation, testing), found {folds}")
    if len(clips) < 3:
        raise ValueError(f"{len(clips)} clips cannot be split into training, validation and testing")
    columns = ["clip", "class", "recording", "scene", *(["take"] if "take" in clips else [])]
    if protocol in NTU_PROTOCOLS and not (clips["given_split"] != "").any():
        column, training = NTU_PROTOCOLS[protocol]
        is_trained = clips[column].isin(training)
        if is_trained.all() or not is_trained.any():
            raise ValueError(f"{protocol} trains with {', '.join(training)} and tests the others; these clips are all "
                             f"on one side, {', '.join(sorted(clips[column].unique())[:8])}: use by_performer")
        clips = clips.assign(given_split=np.where(is_trained, "training", "testing"))
    if (clips["given_split"] != "").any():
        return clips[columns].assign(fold=1, subset=_given(clips, seed))
    parts = _cut(clips, PROTOCOLS[protocol], folds, seed)
    count = parts.max() + 1
    splits = []
    for fold in range(count if test_on == "every_fold" else 1):
        subset = np.full(len(clips), "training", dtype=object)
        subset[parts == (fold + 1) % count] = "validation"
        if count == 2:  # two scenes: the second one is needed for training, so other recordings of it validate
            rest = np.flatnonzero(parts != fold)
            subset[rest] = "training"
            column = "recording" if PROTOCOLS[protocol] else None
            subset[rest[_cut(clips.iloc[rest], column, 5, seed) == 0]] = "validation"
        subset[parts == fold] = "testing"
        splits.append(clips[columns].assign(fold=fold + 1, subset=subset))
    return pd.concat(splits, ignore_index=True)


def hold_out(clips: pd.DataFrame, *, parts: int, seed: int = 0) -> pd.DataFrame:
    """A split without test clips, to pretrain on: about one in `parts` performers validates, the others train.

    Returns:
        As `make_splits`, one fold.

    Raises:
        ValueError: when all clips are of one performer.
    """
    subset = np.where(_cut(clips, "recording", parts, seed) == 0, "validation", "training")
    return clips[["clip", "class", "recording", "scene", "take"]].assign(fold=1, subset=subset)


def try_splits(clips: pd.DataFrame, *, protocols: list[str], seeds: list[int], folds: int
               ) -> tuple[dict[tuple[str, int], pd.DataFrame], dict[str, str]]:
    """Cut the same clips under several protocols and seeds; a split that their folders give is not regarded.

    Returns:
        (protocol, seed) -> splits as of `make_splits`; and protocol -> why it cannot be had from these clips.
    """
    splits, skipped = {}, {}
    for protocol in protocols:
        try:
            splits |= {(protocol, seed): make_splits(
                clips.assign(given_split=""), protocol=protocol, folds=folds, seed=seed) for seed in seeds}
        except ValueError as error:
            skipped[protocol] = str(error)
    return splits, skipped


def find_duplicates(clips: pd.DataFrame, signatures: np.ndarray, *, tolerance: float = 2.0) -> pd.DataFrame:
    """Find clips that show the same: the same bytes, or the same pictures encoded or scaled in another way.

    A clip that was cut at another moment, or mirrored, is not found.

    Args:
        clips: one row a clip, with clip, class, recording and content (hash of the file).
        signatures: (clips, values), grey values 0-255 of a few small frames, see `sign`.
        tolerance: mean absolute difference in grey values up to which two clips are the same. Measured on real clips:
            another size and encoder give up to 0.7, the nearest different clips of one scene differ by 4.

    Returns:
        One row a pair: clip, other, kind ("identical" or "near-identical"), difference, same_class, same_recording.
        Where more than 100 clips have one and the same signature, all after these are paired with the first alone.
    """
    length = signatures.shape[1]
    signatures = np.ascontiguousarray(signatures, np.float32)
    equal = pd.Series(range(len(clips))).groupby([hashlib.sha256(row).digest() for row in signatures])
    first, further = equal.transform("first").to_numpy(), equal.cumcount().to_numpy() >= ALIKE
    near = [*_find_near(signatures, np.flatnonzero(~further), tolerance * length),
            (first[further], np.flatnonzero(further), np.zeros(further.sum()))]
    one, other, distance = (np.concatenate(parts) for parts in zip(*near))
    order = np.lexsort((other, one))
    first, second = clips.iloc[one[order]], clips.iloc[other[order]]
    same = {column: first[column].to_numpy() == second[column].to_numpy()
            for column in ("content", "class", "recording")}
    return pd.DataFrame({
        "clip": first["clip"].to_numpy(), "other": second["clip"].to_numpy(),
        "kind": np.where(same["content"], "identical", "near-identical"),
        "difference": [round(value / length, 2) for value in distance[order].tolist()],
        "same_class": same["class"], "same_recording": same["recording"]})


def _find_near(signatures: np.ndarray, rows: np.ndarray, radius: float):
    """Pairs of rows whose values differ by no more than `radius` in sum: arrays one, other and distance, part by part.

    Sums over groups of values differ by no more than the values do, so only rows near by their sums are compared. The
    groups are 4 x 4 blocks of the picture, all frames together: clips of one scene differ in where something moves.
    """
    place = np.arange(signatures.shape[1])
    groups = np.equal.outer(place // 64 % 4 * 4 + place // 4 % 4, np.arange(16)).astype(float)
    sums = np.concatenate([signatures[rows[start:start + PAIRS]] @ groups for start in range(0, len(rows), PAIRS)])
    tree = KDTree(sums)
    for start in range(0, len(rows), ROWS):
        found = tree.query_ball_point(sums[start:start + ROWS], radius * (1 + 1e-9) + 1e-6, p=1)  # rounding
        one = np.repeat(np.arange(start, start + len(found)), [len(others) for others in found])
        other = np.concatenate(found).astype(int)
        one, other = rows[one[one < other]], rows[other[one < other]]
        for part in range(0, len(one), PAIRS):
            pair = one[part:part + PAIRS], other[part:part + PAIRS]
            distance = np.abs(signatures[pair[0]].astype(float) - signatures[pair[1]]).sum(1)
            chosen = distance <= radius
            yield pair[0][chosen], pair[1][chosen], distance[chosen]


def sign(frames) -> np.ndarray:
    """A clip's signature: 8 of its frames as 16 x 16 mean grey values, flat.

    Args:
        frames: uint8 (length, height, width, 3), an array or a `ClipArchive`.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, 8).round().astype(int)].mean(-1)
    area = 1
    for axis in (1, 2):
        edges = np.linspace(0, chosen.shape[axis], 17).astype(int)
        chosen = np.add.reduceat(chosen, edges[:-1], axis=axis)
        area = np.multiply.outer(area, np.diff(edges))
    return (chosen / area).astype(np.float32).ravel()


def drop_duplicates(clips: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Keep one clip of each set of duplicates: a given test clip before a validation clip before a training clip."""
    number = {clip: index for index, clip in enumerate(clips["clip"])}
    pairs = [(number[pair.clip], number[pair.other]) for pair in duplicates.itertuples()]
    one, other = np.array(pairs, dtype=int).reshape(-1, 2).T
    _, group = connected_components(coo_matrix((np.ones(len(one)), (one, other)), shape=(len(clips), len(clips))))
    rank = clips["given_split"].map({"testing": 0, "validation": 1}).fillna(2)
    kept = clips.assign(group=group, rank=rank).sort_values(["rank", "clip"]).drop_duplicates("group").index
    return clips.loc[sorted(kept)].reset_index(drop=True)


def _cut(clips: pd.DataFrame, group_column: str | None, folds: int, seed: int) -> np.ndarray:
    """The number of each clip's part, from 0."""
    labels = clips["class"]
    groups = clips[group_column] if group_column else pd.Series(clips["clip"])
    if not group_column and labels.value_counts().max() < 2:
        raise ValueError(f"{len(clips)} clips, each of another class, cannot be cut into parts: add clips")
    if groups.nunique() < 2:
        raise ValueError(f"a split by {group_column} needs at least two of them; all {len(clips)} clips are of "
                         f"{group_column} {groups.iloc[0]!r}. Use the protocol stratified, or add clips")
    folds = max(2, min(folds, groups.nunique(), labels.value_counts().max()))
    cutter = (StratifiedGroupKFold if group_column else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    parts = np.zeros(len(clips), dtype=int)
    with warnings.catch_warnings():  # of classes with fewer clips than parts: the audit tells about them
        warnings.simplefilter("ignore", UserWarning)
        for part, (_, chosen) in enumerate(cutter.split(clips, labels, groups)):
            parts[chosen] = part
    # A group may be so large that a part stays empty.
    return np.unique(parts, return_inverse=True)[1]


def _given(clips: pd.DataFrame, seed: int) -> np.ndarray:
    subset = clips["given_split"].replace("", "training").to_numpy(dtype=object)
    if not (subset == "testing").any():
        subset[subset == "validation"] = "testing"
    if not (subset == "testing").any():
        raise ValueError("the folders give a split without test clips: add a folder test/, or remove train/")
    if not (subset == "validation").any():
        rest = np.flatnonzero(subset == "training")
        if len(rest) < 2:
            raise ValueError(f"the folders give {len(rest)} clips to train on and to validate with, at least 2 are "
                             "needed: add clips to train/, or move all clips out of train/, val/ and test/")
        column = "recording" if clips.iloc[rest]["recording"].nunique() > 1 else None
        subset[rest[_cut(clips.iloc[rest], column, 5, seed) == 0]] = "validation"
    if not (subset == "training").any():
        raise ValueError("the folders give a split without training clips: add train/, or remove val/ and test/")
    return subset
