"""The six rooms of filming, one for each setup: floor, walls, things in the background, light and cameras.

The room's origin is on the floor where people stand, x to the right of the middle camera's picture, y away from that
camera, z up. Lengths here are in centimetres; what is drawn is in decimetres, see `costume`.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from synthetic_clips.render import Camera, Cone, Ellipsoid, Layer, Light, Scene, draw, floor_shadow, linear

SIZE = (320, 180)  # width and height of the pictures in pixels
ANGLES = {1: -45.0, 2: 0.0, 3: 45.0}  # of the cameras about the person, degrees


@dataclass(frozen=True)
class Room:
    """Colours in linear light; walls: x of both side walls and y of the back wall."""

    floor: np.ndarray
    back: np.ndarray
    side: np.ndarray
    walls: tuple[float, float, float]
    tiles: float  # width of the floor's tiles, 0 for none
    panels: tuple  # painted on walls: which (0 left, 1 right, 2 back), from, to along it, from, to in height, colour
    things: tuple  # of the background
    lamp: tuple[float, float, float]
    lamp_color: np.ndarray
    ambient: np.ndarray
    cameras: tuple[float, float, float]  # height, distance from the person, share of the picture that a person fills


def _plant(x, y, height, leaf=(52, 96, 52)):
    pot = Cone(np.array([x, y, 8]) / 10, np.array([x, y, 26]) / 10, (1.1, 1.5), color=linear(150, 84, 60), body=40)
    leaves = [
        Ellipsoid(np.array([x + dx, y + dy, height + dz]) / 10, np.diag([2.2, 2.2, 2.6]), color=linear(*leaf), body=41)
        for dx, dy, dz in ((0, 0, 0), (18, 4, -16), (-16, -6, -20), (4, -10, -40))
    ]
    return (pot, *leaves)


def _locker(x, y, height, color):
    places = [(np.array([x + dx, y, 20]) / 10, np.array([x + dx, y, height]) / 10) for dx in (-22, 0, 22)]
    return tuple(Cone(start, end, (2.2, 2.2), color=linear(*color), body=42) for start, end in places)


def _room(floor, back, side, walls, tiles, panels, things, lamp, warm, ambient, cameras):
    return Room(linear(*floor), linear(*back), linear(*side), walls, tiles, panels, things, lamp,
                np.array([0.80 + 0.05 * warm, 0.78, 0.78 - 0.12 * warm]), np.array(ambient), cameras)  # fmt: skip


DOOR, POSTER, WINDOW, BOARD = (138, 96, 62), (186, 120, 96), (226, 234, 242), (70, 98, 88)
ROOMS = (
    _room((150, 134, 116), (202, 200, 192), (188, 186, 180), (-520, 520, 330), 60,
          ((2, -260, -170, 0, 205, DOOR), (2, 150, 230, 110, 180, POSTER), (1, 0, 140, 90, 200, WINDOW)),
          _plant(300, 260, 110), (-0.35, -0.45, 1), 1, (0.30, 0.30, 0.31), (130, 560, 0.62)),
    _room((120, 124, 130), (176, 190, 200), (164, 178, 188), (-500, 540, 280), 0,
          ((2, 120, 290, 100, 200, WINDOW), (0, -100, 0, 0, 205, (172, 160, 140)), (1, 60, 160, 100, 180, BOARD)),
          _locker(-270, 240, 150, (148, 152, 160)), (0.4, -0.5, 1), 0, (0.30, 0.31, 0.34), (90, 440, 0.74)),
    _room((164, 150, 124), (206, 190, 162), (196, 178, 150), (-540, 500, 360), 40,
          ((2, -330, -160, 95, 190, BOARD), (0, 20, 150, 90, 190, WINDOW), (1, -60, 30, 0, 205, DOOR)),
          _plant(270, 300, 120, (70, 110, 50)), (0.3, -0.3, 1), 1, (0.32, 0.30, 0.28), (213, 615, 0.56)),
    _room((104, 96, 92), (186, 182, 186), (170, 166, 172), (-520, 520, 300), 0,
          ((2, 200, 290, 0, 205, (92, 104, 128)), (2, -240, -150, 110, 185, (200, 176, 96)),
           (0, 60, 170, 90, 190, WINDOW)),
          _locker(320, 240, 110, (120, 88, 66)), (-0.45, -0.35, 1), 0, (0.31, 0.30, 0.31), (165, 355, 0.80)),
    _room((140, 150, 140), (190, 204, 186), (178, 192, 174), (-500, 500, 260), 50,
          ((2, -330, -240, 0, 205, DOOR), (1, -40, 90, 95, 195, WINDOW), (0, 0, 90, 110, 180, POSTER)),
          _plant(-280, 210, 120, (44, 88, 60)), (0.2, -0.6, 1), 0, (0.31, 0.33, 0.31), (105, 500, 0.68)),
    _room((134, 112, 96), (204, 184, 178), (188, 168, 162), (-530, 530, 340), 0,
          ((2, 130, 320, 90, 185, (104, 84, 92)), (2, -300, -210, 0, 205, (196, 190, 180)),
           (1, 60, 170, 90, 190, WINDOW)),
          _locker(-300, 300, 90, (104, 120, 104)), (-0.2, -0.5, 1), 1, (0.32, 0.30, 0.30), (190, 400, 0.60)),
)  # fmt: skip


def camera_of(setup, number, random):
    """Camera 1-3 in room 1-6 as put up for one recording; random: a Generator that moves it. In decimetres."""
    height, distance, share = ROOMS[setup - 1].cameras
    angle = np.radians(ANGLES[number] + random.normal(0, 4))
    distance *= random.uniform(0.93, 1.05)
    position = np.array([np.sin(angle) * distance, -np.cos(angle) * distance, height + random.normal(0, 7)])
    target = np.array([*np.clip(random.normal(0, 28, 2), -42, 42), 86 + random.normal(0, 8)])
    focal = SIZE[1] * share * distance / 172 * random.uniform(0.92, 1.06)
    roll = np.radians(random.uniform(-3, 3))
    return Camera.look_at(position / 10, target / 10, focal, SIZE, roll, up=(0, 0, 1))


def _surfaces_seen(room, camera, rays):
    """Colour (3, height, width), normal (3, height, width) and distance of floor and walls; in decimetres."""
    position = camera.position
    with np.errstate(divide="ignore"):
        left, right, back = (np.array(room.walls) / 10).tolist()
        to_side = np.where(rays[0] < 0, (left - position[0]) / rays[0], (right - position[0]) / rays[0])
        to_back = np.where(rays[1] > 0, (back - position[1]) / rays[1], np.inf)
        to_floor = np.where(rays[2] < 0, -position[2] / rays[2], np.inf)
    distance = np.minimum(np.minimum(to_side, to_back), to_floor)
    x, y, z = (position[:, None, None] + distance * rays) * 10
    color, normal = np.empty_like(rays), np.zeros_like(rays)
    floor = distance == to_floor
    walls = [~floor & (distance == to_side) & (rays[0] < 0), ~floor & (distance == to_side) & (rays[0] >= 0)]
    walls.append(~floor & ~walls[0] & ~walls[1])
    color[:] = room.floor[:, None, None]
    if room.tiles:
        dark = ((x // room.tiles + y // room.tiles) % 2) * 0.10
        color *= 1 - dark
    normal[2] = floor
    for number, (where, shade) in enumerate(zip(walls, (room.side, room.side, room.back))):
        along = y if number < 2 else x
        paint = np.broadcast_to(shade[:, None, None], color.shape)
        for wall, first, last, low, high, panel in room.panels:
            if wall == number:
                inside = (along > first) & (along < last) & (z > low) & (z < high)
                paint = np.where(inside, linear(*panel)[:, None, None], paint)
        paint = np.where(z < 9, paint * 0.45, paint)  # the skirting board
        color = np.where(where, paint, color)
        normal[1 if number == 2 else 0] = np.where(where, (1, -1, -1)[number], normal[1 if number == 2 else 0])
    return color, normal, distance


def filmed(setup, number, random, solids=()):
    """The Scene (camera, lights) of camera 1-3 in room 1-6 and its picture without people, a Layer.

    random: moves the camera a little; solids: things put into the room for this recording.
    """
    room = ROOMS[setup - 1]
    camera = camera_of(setup, number, random)
    lights = [Light(room.lamp, room.lamp_color, 0.25), Light((0.5, -0.8, 0.5), np.array([0.12, 0.12, 0.13]))]
    scene = Scene(camera, lights, room.ambient)
    rays = np.tensordot(camera.axes.T, scene.rays, 1).astype(float)
    color, normal, distance = _surfaces_seen(room, camera, rays)
    light = room.ambient[:, None, None] * (0.8 + 0.2 * normal[2])
    for lamp in lights:
        toward = np.array(lamp.toward) / np.linalg.norm(lamp.toward)
        light = light + np.asarray(lamp.color)[:, None, None] * np.clip(np.tensordot(toward, normal, 1), 0.25, 1)
    picture = np.moveaxis(color * light, 0, -1)
    picture = np.ascontiguousarray(gaussian_filter(picture, (0.7, 0.7, 0)), np.float32)
    layer = Layer(picture, distance.astype(np.float32))
    things = [*room.things, *solids]
    return scene, draw(things, scene, layer, floor_shadow(things, scene), 0.5)
