"""Train a CLIP model: python -m train scale=<tiny|small|medium|large|xlarge> data=<shards> name=<run>."""

from poolbench.command import hydra_command

from train.command import run
from train.config import TrainConfig


def main() -> None:
    """Parse the command line, build the configuration, run it."""
    hydra_command("train", TrainConfig, run)


if __name__ == "__main__":
    main()
