"""Score a model on evaluation sets, zero-shot.

python -m evaluate run=runs/<name> data=<evalsets> [tasks=vtab,imagenet1k]
python -m evaluate model=<open_clip name> checkpoint=<file|tag> data=<evalsets> out=<folder>
"""

from poolbench.command import hydra_command

from evaluate.command import run
from evaluate.config import EvaluateConfig

if __name__ == "__main__":
    hydra_command("evaluate", EvaluateConfig, run)
