"""A pool from its name: metadata, then pictures from their urls as webdataset shards, then what share of it arrived.

python -m curate.download scale=<small|medium|large|xlarge|datacomp_1b> out=<folder> [npz=true] [images=false]

A second run goes on where the first one stopped.
"""

from typing import TYPE_CHECKING

from poolbench.errors import UserError

if TYPE_CHECKING:  # the processes that make shards import this file too, and need nothing of it
    from curate.download.options import DownloadOptions


def run(options: "DownloadOptions") -> int:
    """The command.

    Raises:
        UserError: as it says, or a package of the extra `download` is missing.
    """
    try:
        from curate.download.run import download
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; pip install 'poolbench[download]'") from None
    return download(options)


if __name__ == "__main__":
    from poolbench.command import Command

    from curate.download.options import DownloadOptions

    Command(DownloadOptions, run).start()
