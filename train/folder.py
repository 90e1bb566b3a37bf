"""Where a run lives, for scripts that look after it: python -m train.folder <the options of python -m train>."""

import sys

from poolbench.command import compose
from poolbench.errors import exit_on_user_error
from poolbench.usage import asked_for, composed_usage
from train.config import TrainConfig


def main() -> None:
    """Print the folder of the run that the command line describes.

    Raises:
        UserError: an unknown key, an unknown choice, or a value of the wrong type.
    """
    if asked_for(sys.argv[1:]):
        print(f"{__doc__}\n{composed_usage('train')}")
        return
    print(compose("train", sys.argv[1:], TrainConfig).folder)


if __name__ == "__main__":
    exit_on_user_error(main)
