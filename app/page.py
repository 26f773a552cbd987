"""The page in the browser: `python -m app`, in a notebook `build_app().launch()`; on this machine alone by default."""

import functools
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import gradio
import matplotlib
import typer
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from app.answers import check_wash, read_template, watch_patient
from app.uploads import MAX_BYTES, MAX_FILES, read_upload
from health_actions.analysis.studies import load_recogniser
from health_actions.params import read_params
from health_actions.paths import find_root

TOGETHER = 2  # videos that are processed at the same time; others wait
ABOUT = """# Hand washing and patients, seen by a model
The models are trained on **synthetic clips**; how they did on real clips is in the README. They are often wrong. This
is **not a medical device**: do not rely on it for anybody's health."""
PRIVATE = """Your videos stay on this machine: nothing is sent anywhere, and they are deleted after an hour or when the
app ends."""
WARNING = """Anybody in the network can upload videos to this machine. There is no password and no encryption: others in
the network may read what is sent. Videos are deleted after an hour or when the app ends."""
WASH = f"""Upload clips of single actions of at most 30 seconds, or longer videos of a whole wash: at most {MAX_FILES}
files of {MAX_BYTES // 10**6} MB. You get the action in each clip, and a list of the missing actions with pictures."""
MONITOR = """Upload a video of up to four hours, or use your camera. You get a timeline of the actions, and an alert
when somebody falls or staggers. One person is followed."""
LOCAL = ["127.0.0.1", "localhost", "::1"]  # hosts at which nobody else can reach the page
# The browser sends no request to another machine: not for fonts, and not for what Gradio's own tools would fetch.
POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
UNUSED = re.compile("/gradio_api/(process_recording|proxy|vibe|undo-vibe|dev|profiling|stream)|/monitoring")


class Guard:
    """Middleware: sends `POLICY` with every response, and refuses what Gradio offers and this page does not need."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """See ASGI."""
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        app = PlainTextResponse("not here", 404) if UNUSED.match(scope.get("path", "")) else self.app
        await app(scope, receive, send_with_policy)


def take_files_only(component: gradio.components.Component) -> gradio.components.Component:
    """Let a component accept uploaded files only: Gradio would also fetch files from web addresses.

    Not a subclass: Gradio writes a file beside the source of each.
    """
    move = component.async_move_resource_to_block_cache

    async def move_file(place: str | None) -> str | None:
        if "://" in str(place):
            raise gradio.Error("Only uploaded files are accepted, no web addresses.")
        return await move(place)

    component.async_move_resource_to_block_cache = move_file
    return component


class LocalBlocks(gradio.Blocks):
    """A page for this machine alone, whatever launches it."""

    host = LOCAL[0]  # `main` alone changes it

    def launch(self, **options):
        """As Gradio's; options that would open the page to others have no effect."""
        fixed = {
            "server_name": self.host, "share": False, "max_file_size": MAX_BYTES, "show_error": False,
            "run_history": False, "enable_monitoring": False, "mcp_server": False, "ssr_mode": False, "pwa": False,
            "footer_links": [], "quiet": True, "css": str(read_template().style()),
            "theme": gradio.themes.Default(primary_hue="blue", font=["sans-serif"], font_mono=["monospace"]),
            "app_kwargs": {"middleware": [Middleware(Guard)]}}
        return super().launch(**(options | fixed))


@functools.cache
def claim_folder() -> tempfile.TemporaryDirectory:
    """The one folder for uploads; deleted when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="health-actions-", ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = gradio.routes.DEFAULT_TEMP_DIR = folder.name  # this one was read at import
    return folder


def build_app(root: Path | None = None) -> gradio.Blocks:
    """The page with its two tabs; a tab whose models are missing says how to get them.

    Args:
        root: of the project; by default the one around the working folder.

    Raises:
        FileNotFoundError, ValueError: without a project or with an unreadable params.yaml.
    """
    root = root or find_root()
    claim_folder()
    if (root / "matplotlibrc").is_file():
        matplotlib.rc_file(root / "matplotlibrc")
    alerts = read_params(root)["ntu"]["actions"]["alerts"]
    with LocalBlocks(title="Hand washing and patients", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown(f"{ABOUT} {PRIVATE if page.host in LOCAL else ''}")
        if page.host not in LOCAL:
            gradio.HTML(str(read_template().notice(f"Warning: {WARNING}")), elem_classes="answers")
        with gradio.Tab("Hand-wash check"):
            gradio.Markdown(WASH)
            add_check(root, "handwash", "Check the wash", check_wash,
                      lambda: gradio.File(file_count="multiple", label="Videos of a hand wash", height=280))
        with gradio.Tab("Patient monitor"):
            gradio.Markdown(MONITOR)
            add_check(root, "ntu", "Watch the video",
                      lambda recogniser, *given: watch_patient(recogniser, alerts, *given),
                      lambda: gradio.Video(sources=["upload", "webcam"], label="Video of a patient",
                                           elem_classes="video", webcam_options=gradio.WebcamOptions(mirror=False)))
    return page.queue(default_concurrency_limit=TOGETHER, max_size=20)


def add_check(root: Path, study: str, task: str, look: Callable, make_input: Callable) -> None:
    """Add an input, a button and the answer to the page, or a notice when the study has no model.

    Args:
        root: of the project.
        study: "handwash" or "ntu".
        task: what the button says.
        look: takes the recogniser, the input's value and the progress; yields the answer's HTML.
        make_input: makes the input component.
    """
    try:
        recogniser = load_recogniser(root, study)
        recogniser.read = read_upload
    except (OSError, ValueError) as error:
        gradio.HTML(str(read_template().notice(f"No model could be loaded: {error}.")), elem_classes="answers")
        return

    def answer(value, progress=gradio.Progress()):  # noqa: B008, Gradio finds it by its default
        yield from look(recogniser, value, progress)

    videos, button = take_files_only(make_input()), gradio.Button(task, variant="primary")
    bar, page = gradio.HTML(elem_classes="bar"), gradio.HTML(elem_classes="answers")
    work = button.click(answer, videos, page, concurrency_id="videos", concurrency_limit=TOGETHER, api_name=study,
                        show_progress_on=bar)  # not on the answer, which is shown while it grows
    videos.change(None, None, page, js="() => ''", cancels=work)  # in the browser: a click right after it is not lost


def main(port: Annotated[int, typer.Option(help="Of the address.", min=1, max=65535)] = 7860,
         host: Annotated[str, typer.Option(help="The address to serve at; 0.0.0.0 opens the page to the whole "
                                                "network, without password and encryption.")] = LOCAL[0]) -> None:
    """Open the page on http://HOST:PORT; by default nothing leaves this machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder of uploads is deleted, too
    LocalBlocks.host = host
    try:
        page = build_app()
        page.launch(server_port=port, prevent_thread_lock=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if host not in LOCAL:
        print(f"warning: {WARNING}".replace("\n", " "), file=sys.stderr, flush=True)
    print(f"Open {page.local_url} in a browser; Ctrl+C ends it.", flush=True)
    page.block_thread()
