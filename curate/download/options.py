"""What `python -m curate.download` takes; apart from what needs the packages of the extra `download`."""

from dataclasses import dataclass

from poolbench.options import option, output


@dataclass
class DownloadOptions:
    """The options; docs/download.md says where each default comes from."""

    scale: str = option("small | medium | large | xlarge | datacomp_1b")
    out: str = output("folder for metadata/ and shards/")
    metadata: bool = option("false: take the metadata that lie there as they are", True)
    npz: bool = option("true: bring the embeddings too", False)
    images: bool = option("false: metadata only", True)
    processes: int | None = option("each of which makes a shard at a time; null: one for each core", None)
    threads: int = option("urls that a process asks for at a time", 128)
    retries: int = option("passes over the urls of a shard that failed and may mend", 2)
    pause: float = option("seconds before the first of them, doubled before each further one", 5.0)
    again: bool = option("true: go once more over finished shards, for what has mended", False)
    blur_faces: bool = option("false: leave face_bboxes as they are", True)
    keep_changed: bool = option("false: drop a picture that is not the one of the metadata", True)
    shard_size: int = option("rows of a shard", 10_000)
    timeout: float = option("seconds to connect, and without a byte", 10.0)
    deadline: float = option("seconds for a url in all", 60.0)
    max_bytes: int = option("of a picture at most", 64 * 2**20)
    per_host: int = option("connections of a process to one host, at most", 8)
    per_host_total: int = option("connections of all processes of all parts to one host, at most", 256)
    private_addresses: bool = option("true: fetch from this machine and private networks too", False)
    part: str | None = option("i/n: every n-th shard, and that part of the metadata; then merge=", None)
    merge: int | None = option("n: bring nothing, say what each of n parts lacks, and report on all", None)
