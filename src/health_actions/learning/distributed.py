"""Training by several processes together, one for each GPU, on one machine or more: each takes its share of a batch.

With `devices` or `num_nodes` above 1 in params.yaml, `train_runs` starts them itself, under a notebook, too. Further
machines see the same files under the same paths; there they are started by hand, and wait for what the first one sends:

    MASTER_ADDR=first.example.org dvc repro                                         # on the first machine
    while torchrun --nnodes 2 --node-rank 1 --nproc-per-node 4 --master-addr first.example.org --master-port 29500 \\
        -m health_actions.learning.distributed; do :; done                                   # on the second

Or one training from the command line, with the options and defaults of `health-actions train`:

    torchrun --nproc-per-node 4 -m health_actions.learning.distributed train --cuda --study ntu --arch resnet50 --save-dir mine

As many items make a step as in one process, and the same ones. Gradients are those of one process, but for rounding and
dropout, where a network has no batch normalisation. With it, on GPUs, statistics are those of the whole batch, too; on
CPUs torch cannot synchronise them: each process has its share's, and running ones are the first process's.
"""

import contextlib
import datetime
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import joblib
import torch
from torch import distributed

PORT = "29500"  # where the machines meet, unless MASTER_PORT says another one
PATIENCE = datetime.timedelta(days=1)  # the others wait while the first process alone makes features or tests a model


def get_share() -> tuple[int, int]:
    """This process's number from 0, and how many compute together; (0, 1) where it is alone."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    if get_share()[1] > 1:
        distributed.barrier()


def run_together(calls: list, devices: int, num_nodes: int = 1) -> list:
    """Carry out calls one after the other, each by all processes together.

    Args:
        calls: of `joblib.delayed`.
        devices: processes on each machine; as torchrun started them where this is one of them.
        num_nodes: machines.

    Returns:
        What the first process got from each call.

    Raises:
        ChildProcessError: one process failed, which ended the others; says what went wrong there.
        ValueError: several machines, and MASTER_ADDR does not say where they meet.
    """
    if get_share()[1] > 1:
        return _lead(calls)
    where = ["--standalone", "--local-addr=localhost"]
    if num_nodes > 1:
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", PORT)
        if not address:
            raise ValueError(f"num_nodes is {num_nodes} and MASTER_ADDR is not set: set it to this machine's name as "
                             "the others know it, see health_actions.learning.distributed")
        where = ["--node-rank=0", f"--master-addr={address}", f"--master-port={port}"]
    threads = str(max(1, joblib.cpu_count() // devices))
    with tempfile.TemporaryDirectory(prefix="health-actions-") as name:
        folder = Path(name)
        joblib.dump(calls, folder / "calls")
        # Its standard input ends with this process, however that ends; torchrun's own report is for nobody.
        with (folder / "torchrun.log").open("w") as log, subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *where, f"--nnodes={num_nodes}",
                 f"--nproc-per-node={devices}", "-m", "health_actions.learning.distributed", "calls", name],
                stdin=subprocess.PIPE, stdout=2, stderr=log, env={"OMP_NUM_THREADS": threads} | os.environ) as torchrun:
            code = torchrun.wait()
        if code:
            errors = sorted(folder.glob("error-*"), key=lambda file: file.stat().st_mtime_ns)  # the first made the rest
            if errors and not re.search(r"exitcode *: -9\b", (folder / "torchrun.log").read_text()):
                raise ChildProcessError(errors[0].read_text(encoding="utf-8"))
            raise ChildProcessError(f"one of {devices * num_nodes} processes that train together was stopped from "
                                    "outside, most likely because memory ran out")
        return joblib.load(folder / "results")


def _lead(calls: list | None) -> list:
    """Send calls to the other processes and carry them out with them; None: there are no more."""
    distributed.broadcast_object_list([calls])
    return [function(*values, **named) for function, values, named in calls or []]


def _follow() -> None:
    """Carry out what the first process sends until there is no more."""
    while True:
        received = [None]
        distributed.broadcast_object_list(received)
        if received[0] is None:
            return
        for function, values, named in received[0]:
            function(*values, **named)


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _run_command(arguments: list[str]) -> None:
    from health_actions import cli as commands
    try:
        commands.app(arguments)
    except SystemExit as end:
        if end.code:
            os._exit(end.code)  # what was wrong is told; torchrun ends the others


def main(arguments: list[str]) -> None:
    """One of torchrun's processes: the first does what `arguments` say, the others what it sends."""
    folder = Path(arguments[1]) if arguments[:1] == ["calls"] else None
    if folder:
        threading.Thread(target=_end_with_starter, daemon=True).start()
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with contextlib.redirect_stderr(sys.stdout) if folder else contextlib.nullcontext():
        try:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)
            if number:
                _follow()
            else:
                if folder:
                    joblib.dump(_lead(joblib.load(folder / "calls")), folder / "results")
                else:
                    _run_command(arguments)
                _lead(None)
            distributed.destroy_process_group()
        except Exception as error:
            said = f"process {number + 1} of {count} that train together: {type(error).__name__}: {error}"
            said = said.splitlines()[0]
            if folder:
                (folder / f"error-{number}").write_text(said, encoding="utf-8")
            else:
                print(f"error: {said}", file=sys.stderr, flush=True)
            os._exit(1)  # at once: another thread or process might be waited for in vain


if __name__ == "__main__":
    if "RANK" not in os.environ:
        sys.exit("error: start it by torchrun: torchrun --nproc-per-node 2 -m health_actions.learning.distributed train --help")
    main(sys.argv[1:])
