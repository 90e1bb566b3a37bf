"""`python -m train` with the tests' small model known to open_clip; for tests that need processes of their own."""

from pathlib import Path

import open_clip

open_clip.add_model_config(Path(__file__).parent / "models")

from train.__main__ import main  # noqa: E402

if __name__ == "__main__":
    main()
