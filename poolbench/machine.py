"""What this process may use of the machine."""

import os
import platform
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_OWNER = "POOLBENCH_ENDS_WITH"
MAX_WORKERS = 12  # more data workers per process ask for more memory than they give speed


def cores() -> int:
    """How many cores this process may run on, which batch systems and containers make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(world_size: int) -> int:
    """Data workers for each of `world_size` processes on this machine: the cores there are, one left to each
    process."""
    return max(0, min(MAX_WORKERS, cores() // world_size - 1))


def end_with_parent() -> None:
    """Let this process of `multiprocessing` end with the one that started it, which cannot say so if it is killed."""
    import multiprocessing  # which whoever asks for this has loaded

    parent = multiprocessing.parent_process()
    assert parent is not None
    _end_behind(parent.join)


def owning(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a command of ours that is to end with this process, however that ends."""
    return {**environment, _OWNER: str(os.getpid())}


def end_with_owner() -> None:
    """Let this command end with the process that started it, where that is `owning` it."""
    owner = os.environ.pop(_OWNER, None)
    if owner is not None:
        number = int(owner)
        _end_behind(lambda: _wait(number))


def _end_behind(wait: Callable[[], None]) -> None:
    def wait_and_end() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread is to be woken by them
        wait()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _wait(number: int) -> None:
    """Wait until the process of that number is gone."""
    try:
        process = os.pidfd_open(number)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # no Linux, or one from before 5.3
        while os.getppid() == number:
            time.sleep(1)
        return
    ended = select.poll()  # which takes a file of any number
    ended.register(process, select.POLLIN)
    ended.poll()


def slow_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU is known to multiply bfloat16 more slowly than float32: an x86 without matrix units for it.

    With AVX-512 alone it takes 4 times as long (30 against 110 GFLOP/s on one thread), without AVX-512 some 15 times,
    with Intel's AVX-512 BF16 1.5 to 2 times (78 against 117, 86 against 166); another maker's was not measured. AMX is
    faster (596 against 84).
    """
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        return False
    words = set(cpuinfo.read_text(encoding="utf-8").split())
    return "amx_bf16" not in words and ("avx512_bf16" not in words or "GenuineIntel" in words)
