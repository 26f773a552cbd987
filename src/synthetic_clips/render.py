"""A small renderer of smooth bodies (round cones and ellipsoids) on the processor, in numpy alone.

Lengths are in centimetres, the world's z axis points up, colours are linear light (0 black, 1 white). Every surface
belongs to a numbered body: surfaces of one body melt into each other where they meet, those of different bodies cut.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

MELT = 0.28  # cm of depth over which surfaces of one body melt into each other
SHARPNESS = 28  # exponent of the specular highlight


def unit(vector):
    """The vector(s) of shape (..., 3) scaled to length one."""
    vector = np.asarray(vector, float)
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def linear(red, green, blue):
    """Linear light of a screen colour given in 0-255; the inverse of the gamma that `develop` applies."""
    return (np.array([red, green, blue]) / 255) ** 2


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: `axes` are the world directions of image right, image down and forward, as rows."""

    position: np.ndarray
    axes: np.ndarray
    focal: float  # in output pixels
    size: tuple[int, int]  # output width, height
    supersample: int = 2

    @classmethod
    def look_at(cls, position, target, focal, size, roll=0.0, up=(0, 1, 0)):
        """A camera at `position` that sees `target` in the middle, turned by `roll` radians about its axis."""
        forward = unit(np.subtract(target, position))
        right = unit(np.cross(forward, up))
        down = np.cross(forward, right)
        right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
        return cls(np.asarray(position, float), np.stack([right, down, forward]), float(focal), tuple(size))

    @property
    def scale(self):
        """Focal length in the finer pixels that are drawn before averaging."""
        return self.focal * self.supersample

    def rays(self):
        """Unit directions in camera axes through every fine pixel, float32 of shape (3, height, width)."""
        width, height = np.array(self.size) * self.supersample
        down, right = np.mgrid[:height, :width].astype(np.float32)
        rays = np.stack([right + 0.5 - width / 2, down + 0.5 - height / 2, np.full_like(right, self.scale)])
        return (rays / np.sqrt((rays**2).sum(0))).astype(np.float32)

    def view(self, points):
        """World points of shape (..., 3) in camera axes."""
        return (np.asarray(points, float) - self.position) @ self.axes.T

    def pixels(self, points):
        """Fine pixel coordinates (..., 2) and forward distance (...) of points in camera axes."""
        forward = np.maximum(points[..., 2], 1.0)
        middle = np.array(self.size) * self.supersample / 2
        return points[..., :2] * (self.scale / forward)[..., None] + middle, forward


@dataclass(frozen=True)
class Spot:
    """A coloured mark on a round cone: around `along` (0 start, 1 end), on the side that faces `toward`."""

    along: float
    width: float
    toward: np.ndarray
    spread: float  # 1 - cosine of the angle at which the mark has faded
    color: np.ndarray
    strength: float


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What round cones and ellipsoids share; `back` colours the side turned away from `front`, if given."""

    color: np.ndarray
    back: np.ndarray | None = None
    front: np.ndarray | None = None
    body: int = 0
    gloss: float = 0.1
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True)
class Cone(Surface):
    """The hull of two spheres; with `open_ends` only its side, cut flat (a ring, a sleeve)."""

    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    open_ends: bool = False


@dataclass(frozen=True)
class Ellipsoid(Surface):
    """An ellipsoid whose three half axes are the rows of `axes`."""

    center: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True)
class Light:
    """A far light: `toward` points to it; `softness` widens its shadows (cm of penumbra per cm of height)."""

    toward: np.ndarray
    color: np.ndarray
    softness: float = 0.25


@dataclass
class Layer:
    """A drawn picture: linear colour (height, width, 3) and distance from the camera (height, width), fine pixels."""

    color: np.ndarray
    depth: np.ndarray


@dataclass
class Scene:
    """What is lit alike and seen by one camera; the rays are computed once for all frames."""

    camera: Camera
    lights: list[Light]
    ambient: np.ndarray
    rays: np.ndarray = field(init=False)
    toward: list[np.ndarray] = field(init=False)  # to each light, in camera axes
    sky: np.ndarray = field(init=False)  # up, in camera axes

    def __post_init__(self):
        self.rays = self.camera.rays()
        self.toward = [(self.camera.axes @ unit(light.toward)).astype(np.float32) for light in self.lights]
        self.sky = (self.camera.axes @ [0, 0, 1]).astype(np.float32)


def ground(scene, height_at):
    """Where the rays of a scene meet the ground, for painting a background (a plane, a basin, hills).

    height_at: gives the ground's z at arrays of x and y, at most about as steep as a wall. Returns x, y, z, each of
    shape (height, width), unit normals (3, height, width) and the distance from the camera (height, width).
    """
    position, rays = scene.camera.position, np.tensordot(scene.camera.axes.T, scene.rays, 1)
    z = np.zeros(rays.shape[1:])
    for _ in range(24):  # goes half the way to the height found, so that it settles on walls too
        distance = (z - position[2]) / rays[2]
        x, y = position[0] + distance * rays[0], position[1] + distance * rays[1]
        z += 0.5 * (height_at(x, y) - z)
    step = 0.1
    slope_x = (height_at(x + step, y) - height_at(x - step, y)) / (2 * step)
    slope_y = (height_at(x, y + step) - height_at(x, y - step)) / (2 * step)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(x)])
    return x, y, z, normal / np.sqrt((normal**2).sum(0)), distance.astype(np.float32)


def _windows(camera, points, radii):
    """First and last row and column (n, 4) of the fine pixels that hold spheres in camera axes.

    points: (n, 2, 3), two spheres for each window; radii: (n, 2).
    """
    center, forward = camera.pixels(points)
    reach = (radii * camera.scale / np.maximum(forward - radii, 1.0) * 1.05 + 1)[..., None]
    limit = np.array(camera.size) * camera.supersample
    low = np.clip(np.floor((center - reach).min(1)), 0, limit).astype(int)
    high = np.clip(np.ceil((center + reach).max(1)) + 1, 0, limit).astype(int)
    high[forward.max(1) <= 1.0] = 0  # behind the camera
    return np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], 1)


def _cone_hits(start, end, radii, open_ends, rays):
    """Distance along each ray to a round cone (infinite where missed) and the place along its axis, 0 to 1.

    A round cone is the envelope of the spheres between both ends. The sphere that a ray touches lies at a place
    linear in the distance along the ray, which leaves one quadratic equation; places beyond an end are on its sphere.
    """
    axis, growth, first = end - start, radii[1] - radii[0], radii[0]
    squared = axis @ axis
    slope = max(squared - growth**2, 1e-6)
    along = np.tensordot(axis.astype(np.float32), rays, 1)
    toward = np.tensordot(start.astype(np.float32), rays, 1)
    shift = float((first * growth - start @ axis) / slope)
    base = start + shift * axis
    quadratic = 1 - along * along * np.float32(1 / slope)
    middle = toward + shift * along
    root = np.sqrt(np.maximum(middle**2 - quadratic * float(base @ base - (first + shift * growth) ** 2), 0))
    place = along * ((middle - root) / np.maximum(quadratic, 1e-4)) * np.float32(1 / slope) + shift
    place = np.where(quadratic > 1e-4, place, along < 0)
    inside = np.minimum(np.maximum(place, 0), 1)
    nearest = toward + inside * along
    radius = first + inside * float(growth)
    gap = nearest**2 - (float(start @ start) + inside * (2 * float(start @ axis)) + inside**2 * float(squared))
    gap += radius**2
    hit = gap > 0
    if open_ends:
        hit &= place == inside
    return np.where(hit, nearest - np.sqrt(np.maximum(gap, 0)), np.inf), inside


def _ellipsoid_hits(center, axes, rays):
    """Distance along each ray to an ellipsoid, infinite where missed."""
    shrink = np.linalg.inv(axes.T)
    rays = np.tensordot(shrink.astype(np.float32), rays, 1)
    center = shrink @ center
    squared = (rays**2).sum(0)
    middle = np.tensordot(center.astype(np.float32), rays, 1)
    gap = middle**2 - squared * float(center @ center - 1)
    return np.where(gap > 0, (middle - np.sqrt(np.maximum(gap, 0))) / squared, np.inf)


def _paint(surface, camera, normal, along):
    """Colour (3, n) of a surface where its normals (3, n) are known in camera axes."""
    color = np.asarray(surface.color, np.float32)[:, None]
    if surface.front is not None:
        facing = (camera.axes @ surface.front).astype(np.float32) @ normal
        mix = np.minimum(np.maximum(facing * 1.4 + 0.5, 0), 1)
        back = np.asarray(surface.back, np.float32)[:, None]
        color = back + mix * (color - back)
    for spot in surface.spots:
        facing = (camera.axes @ spot.toward).astype(np.float32) @ normal
        weight = np.exp(-(((along - spot.along) / spot.width) ** 2) - ((1 - facing) / spot.spread) ** 2)
        color = color + (spot.strength * weight) * (np.asarray(spot.color, np.float32)[:, None] - color)
    return color


def _bodies(surfaces, scene, depth):
    """Nearest surfaces before `depth`: (depth, pixel numbers, unit normals (3, n), colours (3, n), gloss (n))."""
    camera, shape = scene.camera, depth.shape
    depth, owner, hits = depth.copy(), np.full(shape, -1, np.int16), []
    ends = [[s.start, s.end] if isinstance(s, Cone) else [s.center, s.center] for s in surfaces]
    radii = [s.radii if isinstance(s, Cone) else [np.sqrt((s.axes**2).sum(1).max())] * 2 for s in surfaces]
    ends, radii = camera.view(ends), np.array(radii)
    for surface, points, radius, window in zip(surfaces, ends, radii, _windows(camera, ends, radii)):
        top, bottom, left, right = window.tolist()
        if bottom <= top or right <= left:
            continue
        window = slice(top, bottom), slice(left, right)
        rays = scene.rays[:, *window]
        if isinstance(surface, Cone):
            distance, along = _cone_hits(*points, radius, surface.open_ends, rays)
        else:
            distance, along = _ellipsoid_hits(points[0], surface.axes @ camera.axes.T, rays), None
        near = distance < depth[window]
        np.copyto(depth[window], distance, where=near)
        np.copyto(owner[window], surface.body, where=near)
        hits.append((surface, points, window, distance, along))
    total = np.zeros((depth.size, 8), np.float32)  # weight, gloss, normal, colour
    flat = np.arange(depth.size).reshape(shape)
    for surface, points, window, distance, along in hits:
        behind = distance - depth[window]
        chosen = (behind < 4 * MELT) & (owner[window] == surface.body)
        pixels = flat[window][chosen]
        if not len(pixels):
            continue
        distance = distance[chosen]
        place = distance * scene.rays[:, *window][:, chosen]
        if isinstance(surface, Cone):
            along = along[chosen]
            start, axis = points[0].astype(np.float32), (points[1] - points[0]).astype(np.float32)
            normal = place - start[:, None] - along * axis[:, None]
            normal /= surface.radii[0] + along * np.float32(surface.radii[1] - surface.radii[0])
        else:
            shrink = np.linalg.inv((surface.axes @ camera.axes.T).T)
            normal = (shrink.T @ shrink).astype(np.float32) @ (place - points[0].astype(np.float32)[:, None])
            normal /= np.sqrt((normal**2).sum(0)) + 1e-6
        weight = np.exp(behind[chosen] * np.float32(-1 / MELT))
        values = np.empty((8, len(pixels)), np.float32)
        values[0], values[1], values[2:5] = 1, surface.gloss, normal
        values[5:8] = _paint(surface, camera, normal, along)
        total[pixels] += (values * weight).T
    pixels = np.flatnonzero(total[:, 0])
    total = total[pixels].T.copy()
    normal = total[2:5] / (np.sqrt((total[2:5] ** 2).sum(0)) + 1e-6)
    return depth, pixels, normal, total[5:8] / total[0], total[1] / total[0]


def _occlusion(depth, scene):
    """How much of the sky (0 all, 1 none) and of the first light is hidden near each pixel, by depth alone."""
    camera = scene.camera
    depth = np.ascontiguousarray(depth[::2, ::2])
    hidden = sum(
        np.clip((depth - gaussian_filter(depth, cm * camera.scale / 2 / depth.mean(), truncate=2)) / cm, 0, 1)
        for cm in (1.0, 2.6)
    )
    margin = 24
    padded = np.pad(depth, margin, mode="edge")
    toward = scene.toward[0]
    shadow, middle = np.zeros_like(depth), np.median(depth)
    for far in (0.8, 1.5, 2.4, 3.4):
        move = toward[:2] * (far * camera.scale / 2 / middle)
        right, down = np.clip(move, -margin, margin).round().astype(int)
        there = padded[margin + down :, margin + right :][: depth.shape[0], : depth.shape[1]]
        above = depth + toward[2] * far - there
        shadow += (above > 0.25) & (above < 7)
    return np.clip(hidden * 0.75, 0, 1), gaussian_filter(np.minimum(shadow / 2, 1), 0.8)


def _enlarge(image):
    return image.repeat(2, 0).repeat(2, 1)


def floor_shadow(surfaces, scene, height=0.0):
    """Shadow (0 lit, 1 dark) of round cones on the floor z = `height`, (height, width) in fine pixels.

    Each cone's shadow is drawn as a rounded stroke a quarter as fine, its edge the softer the higher the cone is;
    ellipsoids cast none.
    """
    camera, light = scene.camera, scene.lights[0]
    direction = unit(light.toward)
    width, rows = np.array(camera.size) * camera.supersample // 4
    down, right = np.mgrid[:rows, :width].astype(np.float32) * 4 + 2
    lit = np.ones((rows, width), np.float32)
    cones = [surface for surface in surfaces if isinstance(surface, Cone)]
    ends = np.array([[cone.start, cone.end] for cone in cones])
    above = ends[..., 2] - height
    pixels, forward = camera.pixels(camera.view(ends - (above / direction[2])[..., None] * direction))
    radii = np.array([cone.radii for cone in cones]) * camera.scale / forward
    blurs = np.maximum(above.mean(1) * light.softness, 0.3) * camera.scale / forward.mean(1)
    reach = (radii.max(1) + blurs)[:, None]
    lows = np.clip(np.floor((pixels.min(1) - reach) / 4), 0, (width, rows)).astype(int).tolist()
    highs = np.clip(np.ceil((pixels.max(1) + reach) / 4), 0, (width, rows)).astype(int).tolist()
    strokes = zip(pixels.astype(np.float32), radii.tolist(), blurs.tolist(), lows, highs)
    for stroke, (first, last), blur, low, high in strokes:
        if high[0] <= low[0] or high[1] <= low[1]:
            continue
        window = slice(low[1], high[1]), slice(low[0], high[0])
        x, y = right[window] - stroke[0, 0], down[window] - stroke[0, 1]
        axis = stroke[1] - stroke[0]
        along = np.minimum(np.maximum((x * axis[0] + y * axis[1]) / (axis @ axis + 1e-6), 0), 1)
        away = np.hypot(x - along * axis[0], y - along * axis[1]) - (first + along * (last - first))
        lit[window] = np.minimum(lit[window], np.maximum(away / (2 * blur) + 0.5, 0))
    return 1 - gaussian_filter(lit, 0.8).repeat(4, 0).repeat(4, 1)


def draw(surfaces, scene, behind, shadow=None, strength=0.7):
    """Draw surfaces over a picture.

    surfaces: Cone and Ellipsoid objects; scene: camera and lights; behind: the Layer they are drawn over;
    shadow: optional (height, width) of shadow in 0-1 that darkens `behind` by `strength`. Returns a new Layer.
    """
    depth, pixels, normal, color, gloss = _bodies(surfaces, scene, behind.depth)
    hidden, shaded = _occlusion(depth, scene)
    hidden, shaded = _enlarge(hidden), _enlarge(shaded)
    dim = 1 - 0.2 * hidden
    picture = behind.color * (dim if shadow is None else dim * (1 - strength * shadow))[..., None].astype(np.float32)
    hidden, shaded = hidden.ravel()[pixels], shaded.ravel()[pixels]
    sight = scene.rays.reshape(3, -1)[:, pixels]
    open_sky = (1 - 0.8 * hidden) * (0.72 + 0.28 * (scene.sky @ normal))
    light = np.asarray(scene.ambient, np.float32)[:, None] * open_sky
    shine = np.zeros_like(light)
    for number, (lamp, toward) in enumerate(zip(scene.lights, scene.toward)):
        lamp_color = np.asarray(lamp.color, np.float32)[:, None]
        seen = (1 - 0.35 * hidden) * (1 - 0.75 * shaded if number == 0 else 1)
        light = light + lamp_color * (np.clip(toward @ normal * 0.82 + 0.18, 0, 1) * seen)
        half = toward[:, None] - sight
        bright = np.clip((half * normal).sum(0) / np.sqrt((half**2).sum(0)), 0, 1) ** SHARPNESS
        shine += lamp_color * (bright * seen)
    picture.reshape(-1, 3)[pixels] = (color * light + gloss * shine).T
    return Layer(picture, depth)


def develop(color, supersample=2, exposure=1.0):
    """Average fine pixels and apply gamma: linear (height, width, 3) to float32 in 0-255 at output size."""
    height, width = color.shape[0] // supersample, color.shape[1] // supersample
    small = color.reshape(height, supersample, width, supersample, 3)
    small = sum(small[:, row, :, column] for row in range(supersample) for column in range(supersample))
    light = small * np.float32(exposure / supersample**2)
    return 255 * np.sqrt(np.clip(light / (1 + 0.12 * light), 0, 1))  # a soft shoulder keeps highlights from clipping
