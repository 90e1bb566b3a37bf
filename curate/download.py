"""A pool from its name: metadata, then pictures from their urls as webdataset shards, then what share of it arrived.

python -m curate.download scale=small|medium|large|xlarge|datacomp_1b out=<folder> [npz=true] [images=false]
    [processes=] [threads=128] [retries=2] [again=true] [metadata=false] ...

docs/download.md explains every key. A second run goes on where the first one stopped.
"""

from conf.errors import UserError, exit_on_user_error


def run() -> int:
    """The command. The processes that make shards import this file too, and need nothing of it.

    Raises:
        UserError: as it says, or a package of the extra `download` is missing.
    """
    try:
        from curate.download_pool import main
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; pip install 'poolbench[download]'") from None
    return main()


if __name__ == "__main__":
    exit_on_user_error(run)
