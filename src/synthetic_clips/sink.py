"""The sinks in which hands are washed: basin, drain, tap, things on the rim, light and camera.

The world's origin is the middle of the basin floor, x to the right of the picture, y to the tap, z up, in centimetres.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from synthetic_clips import render
from synthetic_clips.render import Camera, Cone, Ellipsoid, Layer, Light, Scene, linear, unit


def _metal(bright, dark):
    """Colours of polished metal: bright where it faces the lamps, dark elsewhere."""
    return {"color": linear(*bright), "back": linear(*dark), "front": np.array([-0.2, 0.3, 0.9]), "gloss": 1.0}


CHROME = _metal((156, 158, 160), (62, 63, 66))
BRASS = _metal((214, 168, 84), (84, 55, 20))
BLACK = _metal((58, 58, 62), (18, 18, 20))


@dataclass(frozen=True)
class Sink:
    """One place of filming; colours in linear light, lengths in centimetres."""

    half: tuple[float, float]  # half width and depth of the basin at its rim
    corner: float  # 2 an ellipse, larger more like a box
    rim: float  # height of the rim over the floor
    wall: float  # part of the half width that the wall takes
    basin: np.ndarray
    counter: np.ndarray
    speckle: float  # contrast of the counter's grain
    grain: float  # contrast of the basin's grain
    mirror: float  # how much the basin reflects the room, 0 to 1
    shine: float  # strength of highlights
    drain: tuple[float, float, float]  # place and radius
    drain_color: np.ndarray
    lights: tuple[Light, ...]
    ambient: np.ndarray
    camera: tuple  # position, target, focal length in picture heights, roll in degrees
    outlet: tuple[float, float, float]  # where the water leaves the tap
    objects: tuple  # surfaces of the tap and things on the rim
    hands: tuple[float, float, float] = (0.0, 0.0, 12.5)  # where hands are held


def _spout(outlet, thick, metal, drop):
    """A tap that comes in from the top of the picture and bends down by `drop` to its outlet."""
    outlet = np.array(outlet)
    bend = outlet + [0, 0.6, drop]
    return (
        Cone(bend + [0, 30, 2], bend, (thick * 1.15, thick), body=20, **metal),
        Cone(bend, outlet + [0, 0, 0.4], (thick, thick * 0.8), body=20, **metal),
    )


def _lump(center, half, color, body, gloss=0.05, turn=0.0):
    """A sponge or a piece of soap, turned by degrees."""
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    axes = np.diag(half) @ np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return Ellipsoid(np.array(center), axes, color=color, body=body, gloss=gloss)


def _rod(start, end, radii, color, body, gloss=0.4):
    """A bottle, a cup or a handle."""
    return Cone(np.array(start), np.array(end), radii, color=color, body=body, gloss=gloss)


def _lamps(key, key_color, softness, fill, fill_color):
    return Light(key, np.array(key_color), softness), Light(fill, np.array(fill_color))


STEEL = Sink(
    half=(20.5, 17.5),
    corner=4.5,
    rim=10,
    wall=0.2,
    basin=linear(164, 160, 150),
    counter=linear(196, 192, 184),
    speckle=0.25,
    grain=0.1,
    mirror=0.75,
    shine=0.5,
    drain=(1.0, 3.0, 3.0),
    drain_color=linear(96, 84, 62),
    lights=_lamps((-0.55, 0.25, 1), (0.95, 0.86, 0.68), 0.12, (0.6, -0.4, 1), (0.12, 0.13, 0.15)),
    ambient=np.array([0.20, 0.19, 0.18]),
    camera=((0, -1, 66), (0, 0, 8), 1.50, 0),
    outlet=(-1.5, 9.0, 17),
    objects=(
        *_spout((-1.5, 9.0, 17), 1.3, CHROME, 2.5),
        _lump((-19.5, 15.5, 12), (4.2, 3.0, 2.0), linear(40, 120, 190), 22),
    ),
)
CERAMIC = Sink(
    half=(22, 17),
    corner=2.3,
    rim=9,
    wall=0.45,
    basin=linear(238, 238, 236),
    counter=linear(122, 84, 52),
    speckle=0.3,
    grain=0.0,
    mirror=0.06,
    shine=0.5,
    drain=(0.0, -1.5, 2.3),
    drain_color=linear(150, 152, 156),
    lights=_lamps((0.35, 0.5, 1), (0.62, 0.64, 0.66), 0.45, (-0.6, 0.2, 1), (0.22, 0.22, 0.24)),
    ambient=np.array([0.34, 0.35, 0.37]),
    camera=((1, -8, 68), (0.5, -0.5, 9), 1.46, 2.0),
    outlet=(1.5, 8.5, 15),
    objects=(
        *_spout((1.5, 8.5, 15), 1.7, CHROME, 1.5),
        _rod((-5.5, 16, 12), (-5.5, 16, 15), (2.0, 1.6), linear(153, 155, 158), 24, 0.9),
        _rod((8.5, 16, 12), (8.5, 16, 15), (2.0, 1.6), linear(153, 155, 158), 25, 0.9),
        _rod((22.5, 12, 9), (22.5, 12, 20), (3.0, 3.0), linear(232, 120, 150), 26),
        _rod((22.5, 12, 23), (19, 10.5, 24), (0.7, 0.5), linear(240, 240, 240), 27),
    ),
)
STONE = Sink(
    half=(21, 16.5),
    corner=9,
    rim=11,
    wall=0.1,
    basin=linear(104, 104, 108),
    counter=linear(64, 62, 64),
    speckle=0.5,
    grain=0.55,
    mirror=0.0,
    shine=0.08,
    drain=(-3.0, 4.0, 2.6),
    drain_color=linear(38, 38, 40),
    lights=_lamps((0.7, 0.1, 0.9), (0.85, 0.92, 1.05), 0.2, (-0.6, 0.0, 1), (0.1, 0.1, 0.12)),
    ambient=np.array([0.22, 0.25, 0.30]),
    camera=((-2, 3, 62), (-0.5, 0, 9), 1.44, -3.0),
    outlet=(3.0, 10.0, 16),
    objects=(
        *_spout((3.0, 10.0, 16), 2.1, BLACK, 1.2),
        _lump((18, 16.5, 12.2), (3.6, 2.4, 1.3), linear(240, 236, 200), 22, 0.3, 20),
        _lump((-21.5, 12, 12), (2.6, 5.0, 2.0), linear(70, 150, 80), 23),
    ),
)
COLOURED = Sink(
    half=(19.5, 18.5),
    corner=2.0,
    rim=10,
    wall=0.6,
    basin=linear(44, 138, 150),
    counter=linear(226, 216, 196),
    speckle=0.12,
    grain=0.12,
    mirror=0.0,
    shine=0.35,
    drain=(0.5, 0.5, 2.4),
    drain_color=linear(180, 140, 70),
    lights=_lamps((-0.2, -0.55, 1), (0.88, 0.74, 0.55), 0.3, (0.3, 0.8, 0.8), (0.16, 0.18, 0.24)),
    ambient=np.array([0.30, 0.28, 0.26]),
    camera=((0, 4, 72), (0, 0.5, 9), 1.62, 1.0),
    outlet=(0.5, 9.5, 16),
    objects=(
        *_spout((0.5, 9.5, 16), 1.1, BRASS, 3.0),
        _rod((-4.5, 19, 13), (5.5, 19, 13), (1.0, 1.0), linear(214, 168, 84), 24, 0.9),
        _lump((20, -12, 11.5), (3.4, 4.5, 1.7), linear(236, 200, 60), 22, 0.0, 15),
        _rod((-21.5, 13.5, 10), (-21.5, 13.5, 17), (3.2, 3.6), linear(245, 245, 240), 23, 0.3),
    ),
)
SINKS = STEEL, CERAMIC, STONE, COLOURED


def _noise(random, shape, cell):
    """Smooth noise of shape (height, width), mean 0, deviation 1, with grains of about `cell` pixels."""
    coarse = random.standard_normal([int(n / cell) + 3 for n in shape])
    fine = zoom(coarse, cell, order=1)[: shape[0], : shape[1]]
    return (fine - fine.mean()) / fine.std()


def _height(sink, x, y):
    """Height of the sink's surface over each (x, y)."""
    ring = ((np.abs(x) / sink.half[0]) ** sink.corner + (np.abs(y) / sink.half[1]) ** sink.corner) ** (1 / sink.corner)
    climb = np.clip((ring - 1 + sink.wall) / sink.wall, 0, 1)
    lip = 0.5 * np.exp(-(((ring - 1.03) / 0.03) ** 2))
    drain = np.hypot(x - sink.drain[0], y - sink.drain[1]) / sink.drain[2]
    return sink.rim * climb**2 * (3 - 2 * climb) + lip - 0.5 * np.exp(-(drain**4)) + 0.02 * np.clip(drain, 0, 8)


def place(number, random, size):
    """Scene `number` as one performer films it: its Scene (camera, lights) and its empty picture, a Layer.

    random: a numpy Generator that draws where exactly the camera stands and the spots of dirt and water; size: output
    width, height in pixels.
    """
    sink = SINKS[number]
    position, target, focal, roll = sink.camera
    # The camera is put up again for every performer: some centimetres, degrees, per cent of zoom.
    position = np.array(position) + random.normal(0, [6, 8, 3])
    target = np.array(target) + random.normal(0, [1.5, 1.5, 0])
    camera = Camera.look_at(
        position, target, focal * random.uniform(0.85, 1.12) * size[1], size, np.radians(roll + random.normal(0, 6))
    )
    scene = Scene(camera, list(sink.lights), sink.ambient)
    x, y, height, normal, distance = render.ground(scene, lambda x, y: _height(sink, x, y))
    rays = np.tensordot(camera.axes.T, scene.rays, 1)
    shape = x.shape
    fine, coarse = _noise(random, shape, 2), _noise(random, shape, 9)
    brushed = gaussian_filter(random.standard_normal(shape), (0.5, 9)) * 4
    normal[:2] += 0.02 * sink.mirror * np.stack([coarse, brushed])
    normal /= np.sqrt((normal**2).sum(0))
    on_counter = np.clip((height - sink.rim * 0.93) / (sink.rim * 0.05), 0, 1)
    grain = 1 + sink.grain * (0.30 * coarse + 0.22 * fine) * (1 - on_counter) + sink.speckle * 0.3 * fine * on_counter
    color = sink.basin[:, None, None] * (1 - on_counter) + sink.counter[:, None, None] * on_counter
    if sink.mirror > 0.5:
        on_counter = on_counter * 0.4
    color = color * np.maximum(grain, 0.2)
    angle = np.arctan2(y - sink.drain[1], x - sink.drain[0])
    drain = np.hypot(x - sink.drain[0], y - sink.drain[1]) / sink.drain[2]
    slots = (np.sin(angle * 9) > -0.1) & (drain > 0.35) & (drain < 0.7)
    metal = np.where(slots | (np.abs(drain - 0.85) < 0.06), 0.12, 1.0) * sink.drain_color[:, None, None]
    color = np.where(drain < 1, metal, color)

    light = sink.ambient[:, None, None] * (0.55 + 0.45 * normal[2]) * (0.75 + 0.25 * np.clip(height / sink.rim, 0, 1))
    mirrored = rays - 2 * (rays * normal).sum(0) * normal
    shine = np.zeros_like(light)
    for lamp in sink.lights:
        toward = unit(lamp.toward)
        open_way = np.zeros(shape)
        for lean in np.linspace(-1, 1, 5):  # the lamp is wide, so the rim's shadow is soft
            way = unit(toward + lamp.softness * 0.6 * lean * np.array([toward[0], toward[1], 0]))
            blocked = np.zeros(shape, bool)
            for far in (1.5, 3, 5, 7.5, 10):
                blocked |= _height(sink, x + way[0] * far, y + way[1] * far) > height + way[2] * far + 0.3
            open_way += ~blocked / 5
        open_way = gaussian_filter(open_way, 2)
        light = light + lamp.color[:, None, None] * np.clip(np.tensordot(toward, normal, 1), 0, 1) * open_way
        facing = np.clip(np.tensordot(toward, mirrored, 1), 0, 1)
        shine += lamp.color[:, None, None] * (sink.shine * facing**40 + sink.mirror * (0.9 * facing**7)) * open_way
    room = sink.ambient[:, None, None] * (0.5 + 0.9 * np.clip(0.5 + 1.5 * mirrored[1], 0, 1.6))
    reflected = color * (1.7 * room) + color * shine * 1.3
    picture = color * light * (1 - sink.mirror) + sink.mirror * reflected
    picture += shine * (1 - sink.mirror) * (1 - 0.6 * on_counter)
    for _ in range(random.integers(4, 14)):  # drops left on the basin: a dark edge and a bright middle
        px, py = random.uniform(-0.7, 0.7, 2) * sink.half
        near = np.hypot(x - px, (y - py) * random.uniform(0.7, 1)) / random.uniform(0.25, 0.8)
        picture = picture * (1 - 0.3 * np.exp(-((near - 1) ** 2) * 8)) + 0.12 * np.exp(-(near**2) * 3)
    picture = np.ascontiguousarray(np.moveaxis(picture, 0, -1), np.float32)
    layer = Layer(picture, distance)
    return scene, render.draw(sink.objects, scene, layer, render.floor_shadow(sink.objects, scene))
