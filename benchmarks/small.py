"""The whole pipeline on a small project: short synthetic clips, small models, one or two epochs, one fold."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from synthetic_clips.handwash import write_clips
from synthetic_clips.ntu import write_clips as write_ntu_clips

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FILES = [".dvcignore", "dvc.yaml", "params.yaml", "matplotlibrc", "published", "notebooks", "src", "pyproject.toml",
         "weights", "docs/pictures"]
# Models as small as these take less time than starting processes for them: one is enough, but where two are tested.
ONE_CORE, TWO_CORES = ({"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": cores} for cores in "12")


def set_environment(project: Path, cores: dict[str, str] = ONE_CORE) -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1",
                         "PYTHONPATH": str(project / "src"), "HOME": str(project.parent)} | cores


def run(project: Path, *command: str, check: bool = True, cores: dict[str, str] = ONE_CORE) -> str:
    """Run a command inside the small project as a terminal would; its output."""
    environment = set_environment(project, cores)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=4900)
    assert done.returncode == 0 or not check, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def make_project(folder: Path, change) -> Path:
    """A copy of the project with other parameters; `change` gets and alters what params.yaml holds."""
    folder.mkdir(parents=True)
    for name in FILES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "dvc", "init", "--no-scm", "-q")
    return folder


def shrink(params: dict) -> None:
    """Both studies: small frames and models, one fold, one or two epochs; what is compared, once each."""
    params["handwash"]["models"] = ["cnn_lstm_custom", "cnn_lstm_efficientnet_lite0", "three_stream"]
    study = params["laptop"]["handwash"]
    study["frames"] = {"height": 48, "length": 16}
    study["annotations"] |= {"folds": 3, "test_on": "first_fold"}
    study["training"] |= {"epochs": 2, "window": 8, "precision": "32-true"}
    study["architectures"] = {
        "cnn_lstm_custom": {"size": 32, "options": {"lstm_width": 16}},
        "cnn_lstm_efficientnet_lite0": {"size": 32, "options": {"lstm_width": 16}},
        "three_stream": {"size": 32, "options": {"backbone": "efficientnet_lite0", "lstm_width": 16}}}
    shrink_comparisons(study)
    shrink_ntu(params)


def shrink_comparisons(study: dict) -> None:
    study["settings"] |= {"batch_sizes": [16], "learning_rates": [0.001], "sizes": [32],
                          "augmentations": ["none", "mirror"], "augmentation_size": None, "folds_trained": 1,
                          "epochs": 1, "grid_epochs": 1}
    study["errors"] |= {"saliency_clips": 6, "most_errors": 4}
    study["legacy_switches"] |= {"folds_trained": 1, "epochs": 1, "repeats": 1}
    study["protocols"] |= {"epochs": 1, "seeds": [0], "compared_folds": 3}


def shrink_ntu(params: dict) -> None:
    """Study B: three actions, two to pretrain with, two small networks, one epoch."""
    params["ntu"] |= {"classes": ["staggering", "falling_down", "headache"], "models": ["shufflenetv2", "squeezenet"],
                      "source_classes": ["sit_down", "bow"], "everyday_classes": []}
    study = params["laptop"]["ntu"]
    study["frames"] = {"height": 48, "as_folders": True}
    study["training"] |= {"size": 32, "stride": 2, "precision": "32-true"}
    study["architectures"] = {name: {"epochs": 1} for name in params["ntu"]["models"]}
    study["pretraining"] = {name: {"epochs": 1, "released": None} for name in params["ntu"]["models"]}
    study |= {"evaluation": {"windows": 2}, "actions": {"detailed": {"table_4": "squeezenet"}}}


def write_small_clips(project: Path) -> None:
    """3 performers x 12 hand-wash actions of half a second, and five unusable files; of study B two performers to train
    with, one to test and two to pretrain with, 18 frames a clip."""
    ntu, clips = yaml.safe_load((project / "params.yaml").read_text())["ntu"], project / "data" / "handwash"
    write_clips(clips, performers=3, takes=1, duration=0.6, processes=2)
    good = next(clips.glob("Step_1/*.mp4"))
    (clips / "Step_3" / "cut_off.mp4").write_bytes(good.read_bytes()[:2000])
    (clips / "Step_3" / "text.mp4").write_text("not a video at all\n" * 20)
    (clips / "Step_3" / "zero.mp4").write_bytes(b"")
    write_clips(project / "short", performers=1, takes=1, actions=["Step_1"], duration=5 / 30, processes=1)
    shutil.move(next((project / "short").rglob("*.mp4")), clips / "Step_3" / "five.mp4")
    (clips / "Step_9").mkdir()
    shutil.copyfile(good, clips / "Step_9" / "other.mp4")
    for performers, names in (([1, 2, 3], ntu["classes"]), ([17, 18], ntu["source_classes"])):
        write_ntu_clips(project / "data" / "ntu", performers=performers, actions=names, frames=18, processes=2)


def run_side_by_side(project: Path) -> None:
    """Both studies at a time, in two copies, since dvc runs one stage after the other; then what needs both."""
    other = shutil.copytree(project, project.parent / "other")
    stages = yaml.safe_load((project / "dvc.yaml").read_text())
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda folder, study: run(folder, "dvc", "repro", *(
            name for name in stages["stages"] if name.startswith(study))), (project, other), ("handwash_", "ntu_")))
    for name in (".dvc/cache", "build", "reports", "logs"):
        shutil.copytree(other / name, project / name, dirs_exist_ok=True)
    locks = [yaml.safe_load((folder / "dvc.lock").read_text()) for folder in (project, other)]
    locks[0]["stages"] |= locks[1]["stages"]
    (project / "dvc.lock").write_text(yaml.safe_dump(locks[0], sort_keys=False))
    shutil.rmtree(other)
    run(project, "dvc", "repro")


def run_handwash(project: Path, **options) -> str:
    """Study A alone, and the report of it."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    names = [name for name in stages if name.startswith("handwash_")]
    show, convert = stages["report"]["cmd"]
    return run(project, "dvc", "repro", *names, **options) + run(
        project, "sh", "-c", f"{show} --stage report && {convert}", **options)
