"""Videos are decoded in a subprocess: a file that crashes its decoder, blocks it or fills the memory does so there.

It writes no file, has limited memory, is killed when it yields nothing for too long, and ends when its parent does. It
gets JSON, [function, path, options], and answers with bytes: `ITEM` and a picture, `ERROR` and a reason, or nothing at
the end. Nothing is unpickled.
"""

import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np
import simplejpeg

from health_actions.data import video
from health_actions.data.video import TooLong, UnreadableVideo, VideoFacts

COMMAND = (sys.executable, "-m", "health_actions.data.sandbox")
MEMORY = 2_000_000_000  # bytes that decoding may take
PATIENCE, WORK = 60.0, 3600.0  # seconds without a frame, and of decoding in all, after which a file is given up
ITEM, ERROR = b"i", b"e"


class Sandbox(contextlib.AbstractContextManager):
    """Decodes one video after the other in a subprocess: `with Sandbox() as sandbox`.

    A call ends an earlier iteration that is not finished. Each method raises UnreadableVideo, with the reason in one
    line, also when decoding crashes, hangs for `PATIENCE`, takes `WORK` seconds or more than `MEMORY` bytes.
    """

    process, connection, busy = None, None, False

    def close(self, *_) -> None:
        if self.process:
            self.connection.close()
            self.process.kill()
            self.process.wait()
        self.process, self.busy = None, False

    __exit__ = __del__ = close

    def probe(self, path: Path) -> VideoFacts:
        """See `video.probe`."""
        [content] = self._call("probe", path)
        return VideoFacts(**json.loads(content))

    def encode(self, path: Path, *, height: int, quality: int, indices: np.ndarray | None = None) -> Iterator[bytes]:
        """The frames of `video.stream_frames` as JPEG pictures; quality: 1-95."""
        return self._call("encode", path, height=height, quality=quality, indices=indices)

    def sample(self, path: Path, *, height: int, every: float, longest: float) -> Iterator[np.ndarray]:
        """The frames of `video.sample_frames`, which raises TooLong as well."""
        for content in self._call("sample", path, height=height, every=every, longest=longest):
            yield np.frombuffer(content, np.uint8).reshape(height, -1, 3)

    def _call(self, function: str, path: Path, **options) -> Iterator[bytes]:
        if self.busy:
            self.close()
        if not self.process:
            self.connection, other = Pipe()
            with other:
                self.process = subprocess.Popen(
                    [*COMMAND, str(other.fileno()), str(MEMORY), str(PATIENCE)], pass_fds=[other.fileno()],
                    **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL))
        connection, work, healthy, self.busy = self.connection, WORK, False, True
        try:
            request = [function, str(Path(path).absolute()), options]
            connection.send_bytes(json.dumps(request, default=np.ndarray.tolist).encode())
            while True:
                start, allowed = time.monotonic(), max(0.0, min(PATIENCE, work))
                if not connection.poll(allowed):
                    limit = f"{PATIENCE:.0f} seconds without a frame" if work >= PATIENCE else f"{WORK:.0f} seconds"
                    raise UnreadableVideo(f"takes too long to decode: more than {limit}")
                message = connection.recv_bytes(200_000_000)
                work -= time.monotonic() - start
                if message[:1] != ITEM:
                    break
                yield message[1:]
            reason = message[1:].decode(errors="replace")
            healthy = "memory" not in reason  # the process may still hold what it took
            if message:
                raise TooLong(reason) if reason.startswith("too long") else UnreadableVideo(reason)
        except (EOFError, OSError):
            raise UnreadableVideo("damaged: its decoder crashed") from None
        finally:
            if self.connection is connection:
                self.busy = False
                if not healthy:
                    self.close()


def sample_in_sandbox(path: Path, *, height: int, every: float, longest: float) -> Iterator[np.ndarray]:
    """Sample one video in a subprocess that ends with it, see `Sandbox`."""
    with Sandbox() as sandbox:
        yield from sandbox.sample(path, height=height, every=every, longest=longest)


def serve(connection: Connection, memory: int, patience: float) -> None:
    """Answer requests, as the subprocess does, until the connection closes; memory in bytes, patience in seconds."""
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            signal.alarm(0)
            function, path, options = json.loads(connection.recv_bytes())
            try:
                items, content = _decode(function, Path(path), **options), b"first"
                while content:
                    # The parent kills a process that hangs; if there is none, the alarm does, even without Python.
                    signal.alarm(round(2 * patience))
                    content = next(items, b"")
                    signal.alarm(0)
                    connection.send_bytes(content and ITEM + content)
            except MemoryError:
                connection.send_bytes(ERROR + b"decoding it takes too much memory")
            except (UnreadableVideo, OSError) as error:
                connection.send_bytes(ERROR + str(error).encode(errors="replace"))


def _decode(function: str, path: Path, quality: int = 0, **options) -> Iterator[bytes]:
    if function == "probe":
        yield json.dumps(vars(video.probe(path))).encode()
    elif function == "encode":
        for frame in video.stream_frames(path, **options):
            yield simplejpeg.encode_jpeg(frame, quality, colorsubsampling="420")
    else:
        yield from map(np.ndarray.tobytes, video.sample_frames(path, **options))


if __name__ == "__main__":
    with Connection(int(sys.argv[1])) as own:
        serve(own, int(sys.argv[2]), float(sys.argv[3]))
