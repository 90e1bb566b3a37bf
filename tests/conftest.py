"""Fixtures for all tests."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: test processes share two cores

import bare
import forked
import numpy as np
import open_clip
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from browser import Browser
    from web_server import Web

# `nohup` and `make test &` in a script leave these ignored, and what we start would have it from us: a process that
# does not hear Ctrl-C. With a handler we are as deaf, and our children are not.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda number, frame: None)

# How long an example takes, and how long it takes to draw some, is up to what else the machine does.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

MODELS = Path(__file__).parent / "models"
MACHINE = bare.Machine()


def pytest_configure(config: pytest.Config) -> None:
    """One server forks the commands of all test processes; those that xdist starts inherit where it is."""
    if not hasattr(config, "workerinput"):
        server = forked.session()
        server.__enter__()
        config.add_cleanup(lambda: server.__exit__(None, None, None))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures, those of the module too: a test reaches system packages if it is marked to."""
    MACHINE.show(packages=item.get_closest_marker("system") is not None)


@pytest.fixture(autouse=True, scope="session")
def small_model() -> None:
    """open_clip knows `test-tiny`, a model of 32-pixel images that trains in milliseconds."""
    open_clip.add_model_config(MODELS)


@pytest.fixture(autouse=True)
def handlers_of_before() -> Iterator[None]:
    """What a test does in this process that listens to signals (torchrun's launcher does) ends with it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small model, far enough from the initial ones; not to be written to."""
    from evalsets import write_checkpoint  # here, as most tests need no model

    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def pinned_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lock file that pins every task of the main suite to what the runs of tests/runs.py were scored on."""
    from runs import lock_all  # here, as most tests need no runs

    path = lock_all(tmp_path_factory.mktemp("pinned") / "lock.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLBENCH_LOCK", str(path))  # for the commands that tests start, too
        yield path


@pytest.fixture
def rng() -> np.random.Generator:
    """Other inputs each time; a test that fails shows the seed."""
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Metadata in four files of 250 rows, of which one uid stands in two files; not to be written to."""
    from metadata import columns_of, embeddings_of, write_file, write_metadata  # here, as most tests need none
    from pools import uid_of

    folder = write_metadata(tmp_path_factory.mktemp("pool"))
    columns = columns_of(250, first=750)
    columns["uid"][7] = uid_of(3)
    write_file(folder / "0003.parquet", columns, embeddings_of(250, 750))
    return folder


@pytest.fixture
def hosts() -> Iterator["Web"]:
    """A local web of hosts that serve pictures, fail and lie."""
    from web_server import Web, serving  # here, as most tests need none

    with serving(Web()) as hosts:
        yield hosts


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Where a real S3 server of this machine listens."""
    from s3_server import serving  # here, as most tests need none

    with serving() as port:
        yield port


@pytest.fixture(scope="module")
def bucket(s3_port: int, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty bucket there, another one for each file of tests."""
    from s3_server import bucket_of

    with bucket_of(request.path.stem.replace("_", "-"), s3_port) as url:
        yield url


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which srun and sbatch reach a real SLURM on this machine."""
    import slurm_cluster

    with slurm_cluster.cluster() as environment:
        yield environment


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """A real browser for a file of tests."""
    from browser import Browser, chrome  # here, as most tests need none

    folder = tmp_path_factory.mktemp("pages")
    with chrome(folder / "downloads") as driver:
        yield Browser(driver, folder)


@pytest.fixture
def browser(chromium: "Browser") -> Iterator["Browser"]:
    """The browser, wide and light; whatever a page complains of in the console fails the test."""
    chromium.resize(1280)
    chromium.theme("light")
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture(scope="module")
def usual_page(chromium: "Browser") -> Path:
    """The leaderboard's page of tests/page_boards.py."""
    from page_boards import usual

    from leaderboard.page import page

    return chromium.write(page(usual()))


@pytest.fixture
def view(browser: "Browser", usual_page: Path) -> "Browser":
    """The browser with that page open."""
    browser.open(usual_page)
    return browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, aloud, what needs a system package that is missing; in CI (POOLBENCH_REQUIRE_ALL=1) let it fail instead.

    Files that take long come first, so that no process is left with one of them at the end. Those on SLURM mostly wait,
    and take turns with those that compute.
    """
    places = {path: place for place, path in enumerate(_long_ones_first(items))}
    items.sort(key=lambda item: places[item.path])
    for item in items:
        for mark in item.iter_markers("system"):
            packages, missing = mark.args
            if missing() and not os.environ.get("POOLBENCH_REQUIRE_ALL"):
                item.add_marker(pytest.mark.skip(reason=f"needs {packages} (no {', '.join(missing())})"))


def _long_ones_first(items: list[pytest.Item]) -> list[Path]:
    """The files of the tests, in the order to run them."""
    slow = Counter(item.path for item in items for _ in item.iter_markers("slow"))
    waiting = {item.path for item in items if "cluster" in getattr(item, "fixturenames", ())}
    files = sorted({item.path for item in items}, key=lambda path: (-slow[path], path))
    pairs = zip_longest(*([path for path in files if (path in waiting) is on] for on in (True, False)))
    return [path for pair in pairs for path in pair if path is not None]
