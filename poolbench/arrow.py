"""Arrow without what it brings along, and the columns of a pool's metadata."""

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
    """Stands before the finders of modules, and says that there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
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
