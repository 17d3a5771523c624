"""The work of `prepare` on Ray Data: on all cores of a cluster whose machines see the same folders.

Ray spreads the files, and gives those of a process that died to another. What is done is noted beside the manifest, so
that nothing is done twice; the manifest is written by the machine that asked.
"""

import contextlib
import itertools
import logging
import os
import pickle
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

from .prepare import Job, Settings, do, one_thread_each

HERE = "local"
BLOCKS = 10_000  # at most, however many files: Ray plans by blocks, and a block is told of when all of it is done
STORE = 200 << 20  # bytes of shared memory for a Ray that is started here: names and nothing else go through it


def on_ray(address: str = HERE) -> Callable[..., Iterator[Job]]:
    """What does the jobs of `prepare` on Ray, as `on_threads` does them here: yields each once it is done.

    `address`: of a running cluster, "auto" for the one at hand; "local": Ray is started on this machine, and ended
    afterwards. Machines of a cluster have the pack and its packages at the same place as this one. A program that has
    connected to Ray stays connected, whatever the address. Raises ValueError where Ray is not installed, and where
    there is no cluster at the address.
    """
    packages()

    def each(jobs: Collection[Job], settings: Settings, workers: int | None = None) -> Iterator[Job]:
        """`workers`: processes; left out, one for each core of the cluster."""
        ray, pyarrow = packages()
        with _connected(ray, address, workers):
            cores = max(int(ray.cluster_resources().get("CPU", 1)), 1)
            size = -(-len(jobs) // BLOCKS)
            waiting = iter(jobs)
            blocks = iter(lambda: [pickle.dumps(job) for job in itertools.islice(waiting, size)], [])
            done = ray.data.from_arrow([pyarrow.table({"job": block}) for block in blocks]).map(
                Worker,
                fn_constructor_args=[pickle.dumps(settings)],
                compute=ray.data.ActorPoolStrategy(size=min(workers or cores, cores, len(jobs))),
                num_cpus=1,
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
            )
            for row in done.iter_rows():
                if row["error"]:
                    raise ValueError(row["error"])
                yield pickle.loads(row["job"])

    return each


class Worker:
    """A process of Ray's that does jobs one by one; weights that a measure has loaded stay for the next."""

    def __init__(self, settings: bytes) -> None:
        self.settings: Settings = pickle.loads(settings)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with a job, and what went wrong that a user can mend, or nothing."""
        try:
            with one_thread_each():
                do(pickle.loads(row["job"]), self.settings)
        except ValueError as error:
            return {**row, "error": str(error)}
        return {**row, "error": ""}


@contextlib.contextmanager
def _connected(ray, address, workers):
    """Ray connected to; what is started or connected to here is left again."""
    began = not ray.is_initialized()
    if began:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {"num_cpus": workers, "object_store_memory": STORE, "include_dashboard": False}
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **(here if address == HERE else {}))
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(
                f'ray is "{address}", and there is no cluster that can be used ({error}); start one with `ray start '
                f'--head`, or give "{HERE}" for one on this machine'
            ) from error
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
        if began:
            ray.shutdown()


def packages() -> tuple[Any, Any]:
    """The modules ray and pyarrow. Raises ValueError where Ray Data is not installed."""
    try:
        import pyarrow
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(
            f'work on Ray needs the package ray[data] ({error}); install it with pip install "ray[data]", or leave '
            "out --ray"
        ) from error
    return ray, pyarrow
