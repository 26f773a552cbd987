"""Where clips are decoded: in processes of this machine, or by the workers of a Dask or Ray cluster, through joblib.

A cluster's workers need this package and see the folders of clips and frames under the same paths. Ray was not at hand
when this was written: all that is known of it is that its own `register_ray` makes it a backend of joblib.
"""

import sys
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from importlib import import_module

import joblib

BACKENDS = {"processes": "loky", "dask": "dask", "ray": "ray"}
PACKAGES = {"dask": "distributed", "ray": "ray"}


@contextmanager
def start_engine(name: str = "processes", address: str = "", processes: int = -1):
    """Give `joblib.Parallel` inside of the block somewhere to run.

    Args:
        name: one of `BACKENDS`.
        address: of a Dask scheduler ("tcp://host:8786") or a Ray cluster; empty for a local one.
        processes: on this machine, -1 for one each core; 1 with "processes" is this process itself, which dies with a
            decoder that crashes, so -1 means two at least. A cluster that runs already has its own number.

    Raises:
        ValueError: when there is no such engine, its package is not installed, or nothing answers at the address.
    """
    if name not in BACKENDS:
        raise ValueError(f"no engine {name!r}; known are {', '.join(BACKENDS)}")
    count = max(2, joblib.cpu_count()) if processes == -1 else processes
    with ExitStack() as stack:
        backend = BACKENDS[name]
        if name == "dask":
            backend = stack.enter_context(_start_dask(_import_package(name), address, count))
        elif name == "ray":
            ray = _import_package(name)
            ray.init(address=address or None, num_cpus=None if address else count)
            stack.callback(ray.shutdown)
            import_module("ray.util.joblib").register_ray()
        with joblib.parallel_config(backend=backend, n_jobs=-1 if address else count):
            yield


def list_deaths() -> tuple[type[Exception], ...]:
    """What joblib raises when a worker died instead of giving its result."""
    distributed = sys.modules.get("distributed")
    return (BrokenExecutor, distributed.KilledWorker) if distributed else (BrokenExecutor,)


def _import_package(name: str):
    try:
        return import_module(PACKAGES[name])
    except ImportError:
        raise ValueError(f"the engine {name} is not installed: pip install \"{PACKAGES[name]}\", or set engine to "
                         "processes in params.yaml") from None


@contextmanager
def _start_dask(distributed, address: str, count: int):
    with ExitStack() as stack:
        if not address:
            # A task that kills its worker is told at once; one thread a worker, so that no other task dies with it.
            stack.enter_context(import_module("dask").config.set({"distributed.scheduler.allowed-failures": 0}))
            cluster = distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None)
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(distributed.Client(address))
        except (OSError, ValueError) as error:
            raise ValueError(f"no Dask scheduler answers at {address}: {str(error).splitlines()[0]}") from None
        yield _build_dask_backend(client)


def _build_dask_backend(client):
    """joblib's, which otherwise waits for ever for what a killed worker would have given."""
    backend_class = import_module("joblib._dask").DaskDistributedBackend

    class DaskBackend(backend_class):
        def effective_n_jobs(self, n_jobs):  # of one worker, or while others start again, joblib would do all here
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func, callback=None):
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: callback(done.exception()) if done.exception() else None)
            return future

        def retrieve_result_callback(self, out):
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    return DaskBackend(client=client)
