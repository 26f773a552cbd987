"""What stands for a decoder at the worst clips; a module of its own, since processes import it and little else."""

import ctypes
import os
import signal
import time

from health_actions.data import extraction


def kill(source, target, *_):
    if source.stem in ("clip_1", "clip_5"):
        os.kill(os.getpid(), signal.SIGKILL)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("whole")
    return {}


def hang(source, target, frames, recipe, settings, live):
    if source.stem == "clip_2":
        extraction.HANG = 1.0
        time.sleep(0.1)  # the watch that was set for the usual time is renewed after a part of it only
        live()
        ctypes.PyDLL(None).sleep(200)  # the interpreter's lock is held all the time: no Python code runs here
    return kill(source.with_name("clip_0.mp4"), target)


def fill_memory(source, target, *_):
    if source.stem == "clip_3":
        bytearray(3_000_000_000)
    return kill(source.with_name("clip_0.mp4"), target)


def note_process(source, target, *_):
    kill(source.with_name("clip_0.mp4"), target)
    target.write_text(str(os.getpid()))
    return {}
