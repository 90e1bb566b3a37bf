"""A pool from its name: metadata, then pictures from their urls as webdataset shards, then what share of it arrived.

python -m curate.download scale=<small|medium|large|xlarge|datacomp_1b> out=<folder> [npz=true] [images=false]

A second run goes on where the first one stopped.
"""

import sys

from poolbench.errors import UserError, exit_on_user_error


def run() -> int:
    """The command. The processes that make shards import this file too, and need nothing of it.

    Raises:
        UserError: as it says, or a package of the extra `download` is missing.
    """
    from curate.download.options import DownloadOptions
    from poolbench.command import parse

    words, options = parse(sys.argv[1:], DownloadOptions)
    try:
        from curate.download.run import download
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; pip install 'poolbench[download]'") from None
    return download(words, options)


if __name__ == "__main__":
    exit_on_user_error(run)
