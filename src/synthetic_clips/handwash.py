"""Synthetic clips of hand washing: twelve actions, sixteen performers, four scenes, everything drawn from one seed."""

import shutil
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from synthetic_clips import poses
from synthetic_clips.curves import FPS, bump, wander
from synthetic_clips.encode import write_video, write_whole
from synthetic_clips.hands import HandShape, hand_chains, hand_surfaces
from synthetic_clips.render import Cone, develop, draw, floor_shadow, linear, unit
from synthetic_clips.sheet import contact_sheet
from synthetic_clips.sink import SINKS, place

STEPS = {
    "Step_1": (poses.palms, False),
    "Step_2_Left": (poses.backs, False),
    "Step_2_Right": (poses.backs, True),
    "Step_3": (poses.interlaced, False),
    "Step_4_Left": (poses.hooks, False),
    "Step_4_Right": (poses.hooks, True),
    "Step_5_Left": (poses.thumb_clasp, False),
    "Step_5_Right": (poses.thumb_clasp, True),
    "Step_6_Left": (poses.fingertips, False),
    "Step_6_Right": (poses.fingertips, True),
    "Step_7_Left": (poses.wrist_clasp, False),
    "Step_7_Right": (poses.wrist_clasp, True),
}
ACTIONS = tuple(STEPS)
PERFORMERS = 16
TAKES = 2  # of a performer in the same scene, so that a random split has the same performer and sink on both sides
# Tones from fair to dark; a performer's lies between two of them.
SKINS = [(244, 208, 184), (232, 190, 160), (222, 172, 136), (208, 152, 116), (190, 132, 94),
         (166, 110, 76), (142, 92, 64), (116, 74, 52), (94, 62, 46), (82, 55, 43)]  # fmt: skip


@dataclass(frozen=True)
class Performer:
    """Who washes: hands, and habits that stay the same in all of a performer's clips."""

    hands: HandShape
    rate: float  # rubs a second
    reach: float  # size of the movement, 1 the usual
    spread: float  # of the fingers, 1 the usual
    turn: np.ndarray  # degrees about x, y, z of both hands together
    offset: np.ndarray  # cm
    arms: float  # how far the elbows are apart, 1 the usual
    bend: float  # of the fingers, 1 the usual
    habits: np.ndarray  # 0-1, how each of the seven steps is done, see poses


def performer_of(number: int, seed: int = 0) -> Performer:
    """Draw performer `number` (0-15)."""
    random = np.random.default_rng([seed, 1, number])
    tone = np.random.default_rng([seed, 2]).permutation(PERFORMERS)[number] * 9 / (PERFORMERS - 1)
    skin = linear(*(np.interp(tone, range(10), part) for part in zip(*SKINS))) * random.uniform(0.95, 1.05, 3)
    # Palms are paler and pinker than backs, most so on dark skin.
    paler = linear(226, 166, 146) * (0.55 + 0.45 * (1 - tone / 9))
    palm = skin + (0.35 + 0.2 * tone / 9) * (paler - skin)
    sleeve = linear(*random.integers(20, 235, 3)) if random.random() < 0.45 else None
    hands = HandShape(
        size=random.uniform(0.9, 1.08),
        finger_length=random.uniform(0.93, 1.06),
        finger_width=random.uniform(0.98, 1.22),
        palm_width=random.uniform(0.94, 1.1),
        skin=skin,
        palm=palm,
        gloss=random.uniform(0.06, 0.2),
        sleeve=sleeve,
        sleeve_start=random.uniform(4, 13),
        watch=linear(*random.choice([(30, 30, 34), (120, 74, 40), (190, 194, 198)])) if random.random() < 0.3 else None,
        ring=random.random() < 0.3,
    )
    return Performer(
        hands,
        rate=random.uniform(0.9, 2.3),
        reach=random.uniform(0.85, 1.5),
        spread=random.uniform(0.8, 1.25),
        turn=np.clip(random.normal(0, [10, 6, 14]), -28, 28),
        offset=random.normal(0, [1.2, 0.8, 1.0]),
        arms=random.uniform(0.85, 1.25),
        bend=random.uniform(0.92, 1.08),
        habits=random.random((7, 4)),
    )


@lru_cache(maxsize=2)
def _filmed_place(performer, scene, seed, size):
    return place(scene, np.random.default_rng([seed, 4, performer, scene]), size)


def _moving_hands(person, action, count, random):
    """Poses (left, right) of both hands in every frame, about the origin."""
    make, mirror = STEPS[ACTIONS[action]]
    times = np.arange(count) / FPS
    # Speed wavers by a quarter; half of the clips have a short rest, a third a new grip.
    speed = person.rate * random.uniform(0.85, 1.2) * np.exp(0.25 * wander(random, count, 1.2)[:, 0])
    if random.random() < 0.5:
        speed *= 1 - 0.9 * bump(times, random.uniform(0.5, 4.0), random.uniform(0.5, 0.9))
    apart = np.zeros(count)
    if random.random() < 0.35:
        apart = bump(times, random.uniform(0.6, 4.0), random.uniform(0.5, 0.8))
    phase = 2 * np.pi * (np.cumsum(speed) / FPS + random.random())
    size = person.reach * np.clip(1 + 0.22 * wander(random, count, 1.0)[:, 0], 0.5, 1.4)
    wave = size * np.sin(phase + 0.3 * np.sin(phase + 1))
    sway = np.clip(wander(random, count, 0.8)[:, 0] * 0.7, -1.5, 1.5)
    drift = person.offset + random.normal(0, [0.8, 0.6, 0.5]) + wander(random, count, 2.0, 3) * [0.7, 0.6, 0.5]
    turn = person.turn + random.normal(0, 3, 3) + wander(random, count, 2.0, 3) * [2.5, 2.5, 3.5]
    step = int(ACTIONS[action].split("_")[1])
    habit = person.habits[step - 1] + random.normal(0, 0.12, 4) + 0.08 * wander(random, count, 2.0, 4)
    habit = np.clip(habit, 0, 1)
    for frame in range(count):
        hands = make(wave[frame], sway[frame], habit[frame])
        style = person, turn[frame], drift[frame], apart[frame]
        hands = _restyled(hands[0], 1, *style), _restyled(hands[1], -1, *style)
        yield poses.mirrored(*hands) if mirror else hands


def _restyled(hand, side, person, turn, drift, apart):
    """A pose with a performer's habits: turned and moved as a whole, hands `apart` (0-1) to take a new grip."""

    def rotate(vector):
        for axis, degrees in zip(np.eye(3), turn):
            vector = poses.turned(vector, axis, degrees)
        return vector

    move = drift + apart * np.array([-2.6 * side, -0.8, 0.4 * side])
    return replace(
        hand,
        wrist=rotate(hand.wrist) + move,
        forward=rotate(hand.forward),
        dorsal=rotate(hand.dorsal),
        elbow=hand.elbow * [person.arms, 1, 1] + [drift[0], 0, 0],
        flexion=hand.flexion * person.bend * (1 - 0.35 * apart),
        spread=hand.spread * person.spread,
    )


@dataclass(frozen=True)
class Foam:
    """Soap bubbles on hands: hand, finger, bone, place along it, side and size of each of `n` bubbles."""

    hand: np.ndarray
    finger: np.ndarray
    bone: np.ndarray
    along: np.ndarray
    side: np.ndarray
    radius: np.ndarray

    @classmethod
    def drawn(cls, random, count):
        """Draw `count` bubbles."""
        return cls(
            random.integers(0, 2, count),
            random.integers(0, 5, count),
            random.choice(4, count, p=[0.35, 0.2, 0.1, 0.35]),  # 3: between wrist and knuckle
            random.random(count),
            random.uniform(-1, 1, (count, 3)),
            random.uniform(0.3, 0.7, count),
        )

    def surfaces(self, hands, shape):
        """Bubbles as spheres where the hands are now."""
        chains = [hand_chains(hands[0], shape, 1), hand_chains(hands[1], shape, -1)]
        found = []
        for hand, finger, bone, along, side, radius in zip(*vars(self).values()):
            (joints, backs), pose = chains[hand], hands[hand]
            if bone == 3:
                start, end, back = pose.wrist, joints[finger, 0], pose.dorsal
            else:
                start, end, back = joints[finger, bone], joints[finger, bone + 1], backs[finger, bone]
            center = start + along * (end - start) + unit(back + 0.9 * side) * shape.size
            color = np.array([0.80, 0.82, 0.84])
            found.append(Cone(center, center + 0.4 * side, (radius, radius * 0.7), color=color, body=8, gloss=0.3))
        return found


def _pour(layer, scene, outlet, random):
    """Paint running water from the tap's outlet down to the first thing it meets, in place."""
    camera = scene.camera
    heights = np.linspace(outlet[2], 0.3, 26)
    points = camera.view(np.column_stack([np.full(26, outlet[0]), np.full(26, outlet[1]), heights]))
    pixels, _ = camera.pixels(points)
    limit = np.array(layer.depth.shape)[::-1] - 1
    columns, rows = np.clip(pixels, 0, limit).astype(int).T
    free = np.linalg.norm(points, axis=1) < layer.depth[rows, columns] + 0.6
    free[:8] = True  # the tap itself does not stop its water
    stop = len(free) if free.all() else int(np.argmin(free))
    radius = 0.55 * camera.scale / points[0, 2]
    marks = [(pixel, radius * random.uniform(0.8, 1.15), 0.35) for pixel in pixels[2:stop]]
    for _ in range(16):  # the splash
        away = random.normal(0, 1.5 * radius, 2)
        marks.append((pixels[stop - 1] + away, radius * random.uniform(0.3, 1.1), random.uniform(0.1, 0.5)))
    for (x, y), size, strength in marks:
        left, top = max(int(x - 2 * size), 0), max(int(y - 2 * size), 0)
        patch = layer.color[top : int(y + 2 * size) + 1, left : int(x + 2 * size) + 1]
        down, right = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
        cover = strength * np.exp(-(((right - x) ** 2 + (down - y) ** 2) / size**2).astype(np.float32))[..., None]
        patch += cover * (0.75 * scene.lights[0].color.astype(np.float32) + 0.1 - patch)


def _shifted(image, move):
    """An image moved by a fraction of a pixel right and down, edges repeated."""
    whole = np.floor(move).astype(int)
    right, down = (move - whole).astype(np.float32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")
    column, row = np.clip(4 - whole, 1, 8)

    def crop(up, left):
        return padded[row - up : row - up + image.shape[0], column - left : column - left + image.shape[1]]

    above = crop(0, 0) * (1 - right) + crop(0, 1) * right
    below = crop(1, 0) * (1 - right) + crop(1, 1) * right
    return above * (1 - down) + below * down


def _check(name, value, lowest, highest):
    if not lowest <= value <= highest:
        raise ValueError(f"{name}: expected {lowest} to {highest}, found {value}")


def render_clip(
    performer: int, take: int, action: int, *, seed: int = 0, size=(240, 160), frames: int | None = None
) -> np.ndarray:
    """Draw one clip.

    performer: 0-15; take: 0-1; action: 0-11, a place in ACTIONS; seed: of everything random; size: width and height in
    pixels, multiples of 4; frames: how many, by default 130-159 (4.3-5.3 s at 30 a second).
    Returns uint8 of shape (time, height, width, 3). Raises ValueError for arguments out of range.
    """
    _check("performer", performer, 0, PERFORMERS - 1)
    _check("take", take, 0, TAKES - 1)
    _check("action", action, 0, len(ACTIONS) - 1)
    if min(size) < 32 or any(side % 4 for side in size):
        raise ValueError(f"size: expected multiples of 4 from 32, found {size}")
    if frames is not None and frames < 1:
        raise ValueError(f"frames: expected 1 or more, found {frames}")
    scene = scene_of(performer)
    random = np.random.default_rng([seed, 3, performer, take, action])
    drawn = int(random.uniform(4.35, 5.3) * FPS)
    frames = drawn if frames is None else frames
    person, sink = performer_of(performer, seed), SINKS[scene]
    filmed, empty = _filmed_place(performer, scene, seed, tuple(size))
    # Each clip: running water in four of ten, foam in half, wet and shinier hands with either.
    water, soapy = random.random() < 0.4, random.random() < 0.5
    foam = Foam.drawn(random, int(random.integers(6, 40)) if soapy else 0)
    shape = replace(person.hands, gloss=person.hands.gloss * (1.6 if water or soapy else 1.0))
    gains = random.uniform(0.86, 1.12) * random.normal(1, 0.02, 3)  # exposure and white balance
    grain = random.uniform(1.0, 3.0)  # deviation of the sensor's noise, in 255ths
    shake = wander(random, frames, 0.6, 2) * random.uniform(0.0, 0.5)
    smear = np.float32(random.uniform(0.0, 0.45))  # part of each frame that was exposed one frame earlier
    previous = None
    clip = np.empty((frames, size[1], size[0], 3), np.uint8)
    for number, hands in enumerate(_moving_hands(person, action, frames, random)):
        hands = [replace(hand, wrist=hand.wrist + sink.hands, elbow=hand.elbow + sink.hands) for hand in hands]
        surfaces = hand_surfaces(hands[0], shape, 1, 0) + hand_surfaces(hands[1], shape, -1, 2)
        layer = draw(surfaces + foam.surfaces(hands, shape), filmed, empty, floor_shadow(surfaces, filmed))
        if water:
            _pour(layer, filmed, sink.outlet, random)
        light = layer.color if previous is None else layer.color + smear * (previous - layer.color)
        previous = layer.color
        image = _shifted(develop(light * gains.astype(np.float32)), shake[number])
        image += random.standard_normal(image.shape, np.float32) * np.float32(grain)
        clip[number] = np.clip(image + 0.5, 0, 255)
    return clip


def scene_of(performer: int) -> int:
    """The scene (0-3) in which a performer washes; each scene has four."""
    return performer % len(SINKS)


def clip_path(folder, performer: int, take: int, action: int) -> Path:
    """Where a clip is kept: <class>/HandWash_<recording>_A_<action>_G_<scene>_T_<take>.mp4, numbers from one."""
    scene = scene_of(performer)
    name = f"HandWash_{performer + 1:03d}_A_{action + 1:02d}_G_{scene + 1:02d}_T_{take + 1:02d}.mp4"
    return Path(folder) / ACTIONS[action] / name


def _write(path, performer, take, action, seed, frames):
    return write_video(path, render_clip(performer, take, action, seed=seed, frames=frames), FPS)


def file_twice(folder, copies: int) -> list[Path]:
    """File the first wash of some performers a second time, under recording numbers that follow the last performer's.

    The real set holds recordings twice under two numbers; a split by recording then has the same clip on both sides.
    folder: as filled by `write_clips`; copies: how many performers, 0-16. Returns the paths of the copies.
    """
    _check("copies", copies, 0, PERFORMERS)
    paths = []
    for number in range(copies):
        # Washes of performers that lie apart, so that copies and originals come into different parts of a split.
        performer = number * PERFORMERS // copies
        for action in range(len(ACTIONS)):
            original = clip_path(folder, performer, 0, action)
            paths.append(original.with_name(original.name.replace(
                f"HandWash_{performer + 1:03d}", f"HandWash_{PERFORMERS + number + 1:03d}")))
            if original.exists():
                with write_whole(paths[-1]) as temporary:
                    shutil.copyfile(original, temporary)
    return [path for path in paths if path.exists()]


def write_clips(
    folder, *, seed=0, performers=PERFORMERS, takes=TAKES, actions=None, duration=None, processes=None
) -> list[Path]:
    """Draw and write clips, several at a time, except those whose file exists.

    folder: gets one folder a class; seed: of everything random; performers: 1-16; takes: 1-2 of each performer;
    actions: class names or numbers, by default all; duration: seconds of each clip, by default 4.35-5.3; processes: by
    default one a core.
    A clip does not depend on which others are drawn, nor on the number of processes.
    Returns the paths of all clips asked for. Raises ValueError for arguments out of range.
    """
    _check("performers", performers, 1, PERFORMERS)
    _check("takes", takes, 1, TAKES)
    unknown = [a for a in actions or () if a not in ACTIONS and a not in range(len(ACTIONS))]
    if unknown:
        raise ValueError(f"actions: expected names or numbers of {ACTIONS}, found {unknown}")
    if duration is not None and duration <= 0:
        raise ValueError(f"duration: expected seconds above 0, found {duration}")
    chosen = range(len(ACTIONS)) if actions is None else [ACTIONS.index(a) if a in ACTIONS else a for a in actions]
    frames = None if duration is None else max(1, round(duration * FPS))
    clips = [(performer, take, action) for performer in range(performers) for take in range(takes) for action in chosen]
    paths = [clip_path(folder, *clip) for clip in clips]
    missing = [(path, *clip, seed, frames) for path, clip in zip(paths, clips) if not path.exists()]
    work = Parallel(n_jobs=processes or -1, return_as="generator_unordered")(delayed(_write)(*job) for job in missing)
    for _ in tqdm(work, total=len(missing), desc="clips", unit="clip"):
        pass
    return paths


def montage(folder, performer: int = 0, frames: int = 7, width: int = 240) -> Image.Image:
    """A picture of a performer's clips in a folder: one row a class and take, `frames` moments each (PIL image).

    Raises ValueError if there are none.
    """
    paths = [p for name in ACTIONS for p in sorted(Path(folder, name).glob(f"HandWash_{performer + 1:03d}_*.mp4"))]
    if not paths:
        raise ValueError(f"folder: expected clips of performer {performer} in {folder}, found none")
    return contact_sheet({f"{path.parent.name} {path.stem}": path for path in paths}, frames, width)
