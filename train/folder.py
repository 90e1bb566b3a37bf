"""Where a run lives, for scripts that look after it: python -m train.folder <the options of python -m train>."""

from functools import partial

from poolbench.command import compose, start
from poolbench.usage import composed_usage

from train.config import TrainConfig


def main(arguments: list[str]) -> None:
    """Print the folder of the run that the arguments describe.

    Raises:
        UserError: an unknown key, an unknown choice, or a value of the wrong type.
    """
    print(compose("train", arguments, TrainConfig).folder)


if __name__ == "__main__":
    start(main, partial(composed_usage, "train"))
