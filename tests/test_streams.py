import numpy as np
import pytest
from conftest import draw_square

from health_actions.data import streams
from health_actions.data.streams import draw_flow, draw_gradients

STILL = (128, 128, 0)


def draw_moving(step, size) -> tuple[np.ndarray, np.ndarray]:
    """A speckled square on speckled ground, moving by `step` (down, right) pixels, and where it is (frames, y, x)."""
    numbers = np.random.default_rng(0)
    ground = numbers.integers(60, 90, (size, size), np.uint8)
    square = numbers.integers(150, 250, (size // 3, size // 3), np.uint8)
    frames, places = np.stack([ground] * 5), np.zeros((5, size, size), bool)
    for number in range(5):
        y, x = (size // 3 + number * pixels for pixels in step)
        places[number, y:y + size // 3, x:x + size // 3] = True
        frames[number][places[number]] = square.ravel()
    return np.repeat(frames[..., None], 3, axis=-1), places


@pytest.mark.parametrize("draw", [draw_flow, draw_gradients])
@pytest.mark.parametrize("shape", [
    (3, 32, 32), (8, 64, 64), (2, 84, 84), (2, 128, 128), (2, 16, 16), (2, 45, 80), (1, 64, 64)])
def test_images_have_the_shape_of_the_frames_and_are_always_the_same(draw, shape):
    frames = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    before = frames.copy()
    images = draw(frames)
    assert images.shape == frames.shape and images.dtype == np.uint8
    assert np.array_equal(frames, before)
    assert np.array_equal(images, draw(np.asfortranarray(frames)))


@pytest.mark.parametrize("size", [32, 64, 84, 128])
@pytest.mark.parametrize(("step", "channel", "sign"), [
    ((0, 2), 0, 1), ((0, -2), 0, -1), ((2, 0), 1, 1), ((-2, 0), 1, -1)])
def test_flow_shows_where_things_move_to(size, step, channel, sign):
    frames, places = draw_moving(step, size)
    images = draw_flow(frames).astype(float)
    expected = 127 * 2 / (0.125 * size)
    inside = images[places]
    assert np.median(inside[:, channel]) - 128 == pytest.approx(sign * expected, rel=0.25)
    assert abs(np.median(inside[:, 1 - channel]) - 128) < expected / 8
    assert np.median(inside[:, 2]) == pytest.approx(2 * expected, rel=0.25)
    assert np.array_equal(images[-1], images[-2])
    corner = images[:, -size // 8:, :size // 8]
    assert abs(corner - STILL).mean() < expected / 4


@pytest.mark.parametrize("size", [32, 84])
def test_a_still_clip_is_still(size):
    frame = np.random.default_rng(2).integers(0, 256, (1, size, size, 3), np.uint8)
    for frames in (frame, frame.repeat(4, axis=0), np.full((3, size, size, 3), 90, np.uint8)):
        assert (draw_flow(frames) == STILL).all()
        gradients = draw_gradients(frames)
        assert (gradients == gradients[:1]).all()


def test_faster_than_the_limit_is_the_limit(monkeypatch):
    frames, places = draw_moving((0, 2), 64)
    monkeypatch.setattr(streams, "FASTEST", 0.01)
    images = draw_flow(frames)
    assert (np.median(images[places], axis=0)[[0, 2]] == 255).all() and images[..., :2].min() >= 1


@pytest.mark.parametrize("size", [16, 32, 84])
def test_gradients_show_which_way_edges_run(size):
    stripes = np.zeros((1, size, size, 3), np.uint8)
    stripes[:, :, np.arange(size) % 8 < 4] = 200
    for frames, along in ((stripes, 0), (stripes.swapaxes(1, 2), 1)):  # upright and lying
        image = draw_gradients(frames)[0, ..., 0].astype(float)
        changes = [np.abs(np.diff(image, axis=axis)).mean() for axis in (0, 1)]
        assert image.max() == 255 and changes[along] < changes[1 - along] / 2


def test_gradients_do_not_depend_on_the_light_and_have_equal_channels_and_black_edges():
    frames = draw_square(frames=2, width=64)
    assert np.abs(draw_gradients(frames).astype(int) - draw_gradients(frames // 2 + 20)).max() <= 3
    images = draw_gradients(np.random.default_rng(3).integers(0, 256, (2, 84, 84, 3), np.uint8))
    assert (images == images[..., :1]).all() and images[:, :80, :80].any()
    assert not images[:, 80:].any() and not images[:, :, 80:].any()


@pytest.mark.parametrize("draw", [draw_flow, draw_gradients])
@pytest.mark.parametrize(("frames", "found"), [
    (np.zeros((2, 32, 32, 3)), "float64 (2, 32, 32, 3)"), (np.zeros((32, 32, 3), np.uint8), "uint8 (32, 32, 3)"),
    (np.zeros((2, 3, 32, 32), np.uint8), "uint8 (2, 3, 32, 32)"), (np.zeros((0, 32, 32, 3), np.uint8), "uint8 (0,"),
    (np.zeros((2, 15, 32, 3), np.uint8), "uint8 (2, 15,"), ([[1, 2]], "list ()")])
def test_other_arrays_are_refused_with_what_was_found(draw, frames, found):
    with pytest.raises(ValueError, match="expected one or more frames as uint8") as caught:
        draw(frames)
    assert found in str(caught.value)
