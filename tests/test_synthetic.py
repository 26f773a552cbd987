"""The renderer of the embedded clips."""

import av
import numpy as np
import pytest

from health_actions.synthetic.handwash import render_clip, write_clips
from health_actions.video import probe, read_frames

SMALL = (60, 40)


def test_the_same_seed_draws_the_same_clip_and_another_one_another():
    first, again, other = (render_clip(1, 1, 1, seed=seed, size=SMALL, frames=3) for seed in (0, 0, 1))
    assert first.shape == (3, 40, 60, 3) and first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()


def test_performers_scenes_and_actions_look_different():
    clips = {(p, s, a): render_clip(p, s, a, size=SMALL, frames=2) for p, s, a in
             [(1, 1, 1), (2, 1, 1), (1, 3, 1), (1, 1, 5)]}
    reference = clips.pop((1, 1, 1)).astype(int)
    for what, clip in clips.items():
        assert np.abs(clip - reference).mean() > 2, what


def test_hands_move():
    clip = render_clip(3, 2, 2, size=SMALL, frames=30).astype(int)
    assert np.abs(clip[15] - clip[0]).mean() > 2


def test_written_clips_are_laid_out_like_the_real_set_and_say_that_they_are_synthetic(tmp_path):
    paths = write_clips(tmp_path, performers=1, takes=1, actions=["Step_2_Left"], duration=0.4, processes=1)
    assert [path.relative_to(tmp_path).parts[0] for path in paths] == ["Step_2_Left"]
    assert paths[0].name.startswith("HandWash_001_A_02_G_0")
    facts = probe(paths[0])
    assert facts.synthetic and (facts.width, facts.height, facts.frames, facts.fps) == (240, 160, 12, 30)
    assert read_frames(paths[0], [0, 11])[None].shape == (2, 160, 240, 3)


def test_writing_goes_on_where_it_was(tmp_path):
    arguments = {"performers": 1, "takes": 1, "actions": ["Step_1", "Step_3"], "duration": 0.2, "processes": 1}
    kept, lost = write_clips(tmp_path, **arguments)
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    write_clips(tmp_path, **arguments)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


@pytest.mark.parametrize("wrong", [{"performers": 0}, {"takes": 9}, {"actions": ["Step_99"]}])
def test_wrong_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        write_clips(tmp_path, **wrong)


def test_clips_of_a_real_camera_are_not_taken_for_synthetic(tmp_path):
    path = tmp_path / "own.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    assert not probe(path).synthetic
