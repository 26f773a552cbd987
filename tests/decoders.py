"""A decoder for the worst files, run in place of `health_actions.data.sandbox`; a file's name says what it does."""

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from health_actions.data import sandbox, video

COMMAND = (sys.executable, __file__)
PRELOAD = f"from health_actions.data import sandbox; sandbox.COMMAND = {COMMAND}"  # for processes of their own
decode = video.stream_frames


def stream_frames(path, **options):
    for number, frame in enumerate(decode(path, **options)):
        if number == 3:
            disturb(Path(path))
        yield frame


def disturb(path: Path) -> None:
    if "crash" in path.stem:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif "hang" in path.stem:
        ctypes.PyDLL(None).sleep(200)  # the interpreter's lock is held all the time: no Python code runs here
    elif "memory" in path.stem:
        bytearray(3_000_000_000)
    elif "write" in path.stem:
        path.with_suffix(".written").write_text("a decoder wrote this")
    elif "parent" in path.stem:
        os.kill(os.getppid(), signal.SIGKILL)


if __name__ == "__main__":
    video.stream_frames = stream_frames
    with Connection(int(sys.argv[1])) as connection:
        sandbox.serve(connection, int(sys.argv[2]), float(sys.argv[3]))
