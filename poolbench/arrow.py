"""Arrow without what it brings along, and the columns of a pool's metadata."""

import contextlib
import ctypes
import sys
from typing import Any

import pyarrow as pa

# The columns that every pool has, in their order.
OF_SAMPLES = (
    ("uid", pa.string()),
    ("url", pa.string()),
    ("text", pa.string()),
    ("original_width", pa.int64()),
    ("original_height", pa.int64()),
    ("sha256", pa.string()),
)
SCORES = ("clip_b32_similarity_score", "clip_l14_similarity_score")  # float32
FACES = ("face_bboxes", pa.list_(pa.list_(pa.float64())))


class _Refusal:
    """Stands before the finders of modules, and says that there is no pandas, and no dateutil, of whose intervals Arrow
    has heard."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name in ("pandas", "dateutil"):
            raise ModuleNotFoundError("not needed", name=name)


def do_without_pandas() -> None:
    """Keep Arrow from importing pandas, half a second and 40 MB of every process, at the first value that it takes from
    Python or gives to it. It tries once; what asks for pandas itself still has it."""
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _Refusal)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(_Refusal)


def hold_memory() -> None:
    """Let this process keep what it frees, up to some 64 MB, for what it allocates next.

    By themselves glibc's malloc, and Arrow's choice among the three that it brings, give the memory of each large array
    back and ask for that of the next anew, page by page: a fifth of the time that a filter takes for its rows.
    """
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another system's library
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_threshold, 2**25)
        library.mallopt(trim_threshold, 2**26)
    with contextlib.suppress(NotImplementedError):  # an Arrow that was built without it
        pa.set_memory_pool(pa.jemalloc_memory_pool())
