"""Fixtures for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: test processes share two cores

import open_clip
import pytest

MODELS = Path(__file__).parent / "models"


@pytest.fixture(autouse=True, scope="session")
def small_model() -> None:
    """open_clip knows `test-tiny`, a model of 32-pixel images that trains in milliseconds."""
    open_clip.add_model_config(MODELS)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket in a real S3 server on this machine."""
    from s3_server import bucket_of  # here, as most tests need none

    with bucket_of("pools") as url:
        yield url


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which srun and sbatch reach a real SLURM on this machine."""
    import slurm_cluster

    with slurm_cluster.cluster() as environment:
        yield environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, aloud, what needs a system package that is missing; in CI (POOLBENCH_REQUIRE_ALL=1) let it fail instead."""
    for item in items:
        for mark in item.iter_markers("system"):
            packages, missing = mark.args
            if missing() and not os.environ.get("POOLBENCH_REQUIRE_ALL"):
                item.add_marker(pytest.mark.skip(reason=f"needs {packages} (no {', '.join(missing())})"))
