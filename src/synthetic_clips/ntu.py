"""Synthetic clips in the manner of NTU RGB+D: nine medical and 23 everyday actions, seen by three cameras."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from synthetic_clips.costume import dress, stool
from synthetic_clips.curves import FPS, wander
from synthetic_clips.encode import write_video
from synthetic_clips.everyday import ACTIONS, EVERYDAY
from synthetic_clips.figure import JOINTS, Posture, Skeleton, pose
from synthetic_clips.motions import MEDICAL, SEAT, Take
from synthetic_clips.performers import (
    PERFORMERS,
    SETUPS,
    SOURCE,
    TESTED,
    TRAINING,
    Performer,
    check_choice,
    performer_of,
)
from synthetic_clips.render import develop, draw, floor_shadow
from synthetic_clips.room import ANGLES, SIZE, camera_of, filmed
from synthetic_clips.sheet import contact_sheet

PAIRS = ((1, 2), (2, 3), (3, 1))  # cameras of the first and the second take


@dataclass(frozen=True)
class ClipFacts:
    """What a clip shows."""

    setup: int
    camera: int
    performer: int
    repetition: int
    action: int
    action_name: str
    medical: bool
    subset: str  # training, testing or source
    hand: str  # the one that acts: left or right
    frames: int


@dataclass(frozen=True)
class Performance:
    """A performer's posture and skeleton in every frame of a take."""

    performer: Performer
    posture: Posture
    skeleton: Skeleton
    place: tuple[float, float]  # where the person stands in the room, cm
    facing: float


def perform(performer: int, repetition: int, action: int, *, seed: int = 0, frames: int | None = None) -> Performance:
    """Act without drawing; the same for all cameras.

    performer: one of PERFORMERS; repetition: 1 or 2; action: NTU's number, a key of ACTIONS; frames: how many of
    the first, by default all 60-78 (2.0-2.6 s). Raises ValueError for arguments out of range.
    """
    check_choice("repetition", repetition, (1, 2))
    check_choice("action", action, ACTIONS)
    if frames is not None and frames < 1:
        raise ValueError(f"frames: expected 1 or more, found {frames}")
    person = performer_of(performer, seed)
    habits = np.random.default_rng([seed, 13, performer, action])
    random = np.random.default_rng([seed, 14, performer, repetition, action])
    drawn = int(random.integers(60, 79))  # movements are made for this length, then cut
    usual = 0 if person.left_handed else 1
    side = usual if random.random() < 0.9 else 1 - usual
    posture = Posture(drawn)
    posture.holder = side
    posture.stance = person.stance
    posture.hanging = person.hanging + random.normal(0, 0.6, (2, 3))
    rest = person.stoop + wander(random, drawn, 1.0, 3) * 0.8
    for part, angle in zip((posture.spine, posture.chest, posture.head), rest.T):
        part[:, 0] += angle
    posture.pelvis[:, 0] += 0.8 * wander(random, drawn, 1.5)[:, 0]
    tempo, size = person.tempo * random.uniform(0.92, 1.08), person.size * random.uniform(0.9, 1.1)
    take = Take(posture, np.arange(drawn) / FPS, random, side, tempo, size, habits.random())
    ACTIONS[action](take)
    facing = person.facing + random.uniform(-8, 8)
    place = tuple(random.normal(0, 4, 2))
    whole = pose(person.build, posture, facing, place)
    skeleton = Skeleton(*(part[:frames] for part in vars(whole).values()))
    return Performance(person, posture, skeleton, place, facing)


def _moving(performance, action, repetition, camera, seed):
    """The random numbers that move a clip's camera."""
    return np.random.default_rng([seed, 15, performance.performer.number, camera, action, repetition])


def _filming(performance, setup, camera, random):
    """Scene and picture without the person, but with the stool if there is one."""
    things = []
    if performance.posture.seat is not None:
        scale, angle = performance.performer.build.scale, np.radians(performance.facing + performance.posture.turn[0])
        behind = performance.posture.seat * scale
        x, y = performance.place
        things = stool((x - behind * np.sin(angle), y + behind * np.cos(angle)), SEAT * scale)
    return filmed(setup, camera, random, things)


def project_joints(performer: int, repetition: int, action: int, camera: int, *, seed: int = 0) -> np.ndarray:
    """Where the joints are in the picture, without drawing it: (frames, 25, 2), pixels to the right and down.

    Joints are in the order of `figure.JOINTS`. Raises ValueError for arguments out of range.
    """
    performance = perform(performer, repetition, action, seed=seed)
    check_choice("camera", camera, ANGLES)
    lens = camera_of(SETUPS[performer], camera, _moving(performance, action, repetition, camera, seed))
    pixels, _ = lens.pixels(lens.view(performance.skeleton.joints / 10))
    return pixels / lens.supersample


def render_clip(
    performer: int, repetition: int, action: int, camera: int, *, seed: int = 0, frames: int | None = None
) -> np.ndarray:
    """Draw one clip: uint8 of shape (frames, 180, 320, 3).

    Arguments as for `perform`; camera: 1 to 3 (at -45, 0 and 45 degrees). Raises ValueError for those out of range.
    """
    performance = perform(performer, repetition, action, seed=seed, frames=frames)
    check_choice("camera", camera, ANGLES)
    scene, empty = _filming(
        performance, SETUPS[performer], camera, _moving(performance, action, repetition, camera, seed))
    person, posture, skeleton = performance.performer, performance.posture, performance.skeleton
    light = np.random.default_rng([seed, 16, performer, camera])
    exposure = (light.uniform(0.7, 1.25) * np.exp(light.normal(0, 0.05, 3))).astype(np.float32)  # and white balance
    random = np.random.default_rng([seed, 17, performer, repetition, action, camera])
    grain, blur = random.uniform(0.5, 2.5), random.uniform(0.4, 0.9) * (random.random() < 1 / 3)
    clip = np.empty((len(skeleton.joints), SIZE[1], SIZE[0], 3), np.uint8)
    for frame in range(len(clip)):
        surfaces = dress(skeleton, frame, person.build, person.costume, posture.thing, posture.holder)
        shadow = floor_shadow(surfaces, scene)
        layer = draw(surfaces, scene, empty, shadow)
        # The walls are far behind: there the person only casts a shadow, without the shade of things that lie close.
        shaded = empty.color * (1 - 0.55 * shadow)[..., None].astype(np.float32)
        picture = np.where((layer.depth < empty.depth)[..., None], layer.color, shaded)
        picture = gaussian_filter(develop(picture, exposure=exposure), (blur, blur, 0))
        picture += grain * random.standard_normal(picture.shape, np.float32)
        clip[frame] = np.clip(picture + 0.5, 0, 255)
    return clip


def clip_name(performer: int, repetition: int, action: int, camera: int) -> str:
    """File name of a clip, as NTU's."""
    return f"S{SETUPS[performer]:03d}C{camera:03d}P{performer:03d}R{repetition:03d}A{action:03d}_rgb.avi"


def describe_clip(name, seed: int = 0) -> ClipFacts:
    """What a clip shows, by its file name. Raises ValueError for names of no clip."""
    found = re.fullmatch(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(_rgb)?(\.avi)?", Path(name).name)
    if not found:
        raise ValueError(f"name: expected one like S001C002P003R001A043_rgb.avi, found {Path(name).name}")
    setup, camera, performer, repetition, action = map(int, found.groups()[:5])
    check_choice("camera", camera, ANGLES)
    performance = perform(performer, repetition, action, seed=seed)
    check_choice("setup", setup, [SETUPS[performer]])
    subset = "training" if performer in TRAINING else "testing" if performer in TESTED else "source"
    return ClipFacts(setup, camera, performer, repetition, action, ACTIONS[action].__name__, action in MEDICAL, subset,
                     ("left", "right")[performance.posture.holder], len(performance.skeleton.joints))  # fmt: skip


def locate_hands(clips: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Where the acting hand is in rendered clips, and, to compare with it, the shin of the other side's leg.

    clips: one row a clip, with clip (its name as of `clip_name`, folders in front do not matter), length (frames) and
    synthetic. Returns for each clip two arrays (length, 2), shares of the picture's width to the right and height down;
    clips whose name and length are not those of a rendered clip are left out, since their joints are unknown.
    """
    places = {}
    for row in clips[clips["synthetic"].astype(bool)].itertuples():
        try:
            facts = describe_clip(row.clip)
        except ValueError:
            continue
        if facts.frames == row.length:
            joints = project_joints(facts.performer, facts.repetition, facts.action, facts.camera) / SIZE
            other = {"left": "right", "right": "left"}[facts.hand]
            hand, knee, ankle = (joints[:, JOINTS.index(name)] for name in (
                f"{facts.hand} hand", f"{other} knee", f"{other} ankle"))
            places[row.clip] = hand, (knee + ankle) / 2
    return places


def list_clips(more: tuple[int, ...] = ()) -> list[tuple[int, int, int, int]]:
    """All clips: (performer, repetition, action, camera).

    All act twice, each time before another camera; but those who are tested act only every second of the everyday
    actions, and once.

    Args:
        more: everyday actions that the performers of the medical actions act, too, so that they can be one more class.
    """
    clips, acted = [], (*MEDICAL, *more)
    for group, actions in ((TRAINING, acted), (SOURCE, EVERYDAY), (TESTED, acted)):
        for place, performer in enumerate(group):
            for action in actions:
                pair = PAIRS[(place + action + 1) % 3]
                clips += [(performer, repetition, action, pair[repetition - 1]) for repetition in (1, 2)]
    for place, performer in enumerate(TESTED):
        rest = [action for action in list(EVERYDAY)[place % 2 :: 2] if action not in more]
        clips += [(performer, 1, action, PAIRS[(place + action + 1) % 3][0]) for action in rest]
    return clips


def _write(path, clip, seed, frames):
    return write_video(path, render_clip(*clip, seed=seed, frames=frames), FPS)


def write_clips(folder, *, seed=0, actions=None, performers=None, frames=None, processes=None, also=()) -> list[Path]:
    """Draw and write clips, several at a time, except those whose file exists.

    folder: gets the files; seed: of everything random; actions: names or NTU's numbers, by default all; performers:
    numbers, by default all; frames: of each clip, by default all; processes: by default one a core.
    also: everyday actions that the performers of the medical actions act, too; see `list_clips`.
    A clip does not depend on which others are drawn, nor on the number of processes.
    Returns the paths of all clips asked for. Raises ValueError for arguments out of range.
    """
    names = {act.__name__: number for number, act in ACTIONS.items()}
    for action in (*(actions or ()), *also):
        if action not in names and action not in ACTIONS:
            raise ValueError(f"actions: expected names or numbers of {names}, found {action}")
    for performer in performers or ():
        check_choice("performer", performer, PERFORMERS)
    if frames is not None and frames < 1:
        raise ValueError(f"frames: expected 1 or more, found {frames}")
    chosen = set(ACTIONS) if actions is None else {names.get(action, action) for action in actions}
    more = tuple(number for number in (names.get(action, action) for action in also) if number not in MEDICAL)
    people = PERFORMERS if performers is None else performers
    clips = [clip for clip in list_clips(more) if clip[2] in chosen and clip[0] in people]
    paths = [Path(folder) / clip_name(*clip) for clip in clips]
    missing = [(path, clip, seed, frames) for path, clip in zip(paths, clips) if not path.exists()]
    work = Parallel(n_jobs=processes or -1, return_as="generator_unordered")(delayed(_write)(*job) for job in missing)
    for _ in tqdm(work, total=len(missing), desc="clips", unit="clip"):
        pass
    return paths


def montage(folder, performer: int = TRAINING[0], repetition=1, frames=8, width=240) -> Image.Image:
    """A picture of a performer's clips in a folder: one row a clip, `frames` moments each (PIL image).

    Raises ValueError if there are none.
    """
    paths = sorted(Path(folder).glob(f"*P{performer:03d}R{repetition:03d}*.avi"), key=lambda path: path.name[-12:])
    if not paths:
        raise ValueError(f"folder: expected clips of performer {performer} in {folder}, found none")
    return contact_sheet({f"{ACTIONS[int(p.name[17:20])].__name__} {p.stem}": p for p in paths}, frames, width)
