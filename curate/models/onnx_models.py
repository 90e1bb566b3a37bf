"""Small networks in ONNX files: where a package carries them, and one of them in a process of its own thread."""

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from poolbench.errors import UserError, first_line

_EXTRA = "pip install 'poolbench[text]'"


def carried(name: str) -> Path:
    """A model that rapidocr has within its package, which is not imported: it would set up logs, and can download.

    Raises:
        UserError: rapidocr is not there, or carries no such model.
    """
    found = importlib.util.find_spec("rapidocr")
    if found is None or found.origin is None:
        raise UserError(f"rapidocr is missing, which carries {name}; {_EXTRA}")
    path = Path(found.origin).parent / "models" / name
    if not path.is_file():
        raise UserError(f"rapidocr {versions()['rapidocr']} carries no {name}; {_EXTRA} brings one that does")
    return path


def versions() -> dict[str, str]:
    """The packages that a network comes from and runs in, as they are installed."""
    found = {}
    for name in ("rapidocr", "onnxruntime", "opencv-python-headless"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "?"
    return found


class Network:
    """An ONNX file with one input and one output. Each process opens it for itself, when it first runs it.

    It has one thread, as there are as many workers as cores, and that one sleeps while there is nothing to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session: Any = None

    def __reduce__(self) -> Any:
        return Network, (self.path,)

    def opened(self) -> Any:
        """onnxruntime's session.

        Raises:
            UserError: no onnxruntime, or the file is no such network.
        """
        if self._session is None:
            self._session = self._open()
        return self._session

    def described(self, key: str) -> str:
        """What the file's metadata say under a key, "" where they say nothing."""
        found: str = self.opened().get_modelmeta().custom_metadata_map.get(key, "")
        return found

    def __call__(self, values: Any) -> Any:
        """float32 of the input's shape -> float32 of the output's.

        Raises:
            Exception: whatever onnxruntime raises for values of another shape.
        """
        session = self.opened()
        return session.run(None, {session.get_inputs()[0].name: values})[0]

    def _open(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{error.name} is missing; {_EXTRA}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what is wrong comes as an exception, too
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's have no class in common
            raise UserError(f"{self.path} is no ONNX model that can be run: {first_line(error)}") from None
        if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
            raise UserError(f"{self.path} is a network of several inputs or outputs, not one from pictures to maps")
        return session
