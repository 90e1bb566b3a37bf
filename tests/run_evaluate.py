"""What a test starts with torchrun or srun: `python -m evaluate` with the test's model known to open_clip."""

from pathlib import Path

import open_clip

from poolbench.command import hydra_command

from evaluate.config import EvaluateConfig
from evaluate.run import start

open_clip.add_model_config(Path(__file__).parent / "models")

if __name__ == "__main__":
    hydra_command("evaluate", EvaluateConfig, start)
