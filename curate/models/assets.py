"""Models and tables that filters need and no package carries: fetched once into the cache, known by their digests.

    path = fetched(LID_176)

A file that somebody copies into the cache under its name is taken as it is when its digest is right, which is the way
for machines without a network. docs/curate_models.md lists all with their addresses.
"""

import hashlib
import sys
from pathlib import Path
from typing import IO, NamedTuple

from poolbench.errors import UserError
from poolbench.files import atomic, cache
from poolbench.remote import PIECE, RemoteFile, Tally

_BASELINES = "https://github.com/sagadre/datacomp_baseline_assets/releases/download/v0.1.0-alpha"
_NLTK_DATA = "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28"


class Asset(NamedTuple):
    """A file that can be fetched.

    Attributes:
        name: in the cache.
        url: where it is published.
        digest: "sha256:" or "git:" (SHA-1 as git names content) and hexadecimal digits.
        instead: what the user can do without it, the end of a sentence; empty where nothing.
    """

    name: str
    url: str
    digest: str
    instead: str = ""


LID_176 = Asset(
    "lid.176.bin",
    "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.bin",
    "sha256:7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
    "or take filter.language=fasttext_small, whose subset is not the published filter's",
)
WORDNET = Asset(
    "wordnet.zip",
    f"{_NLTK_DATA}/packages/corpora/wordnet.zip",
    "git:3c68cd207844f071a5206f7fbed23e5c607ec02f",
    "or install Debian's wordnet-base, or name a folder with WordNet 3.0 by filter.wordnet=",
)
_METACLIP = "https://raw.githubusercontent.com/facebookresearch/MetaCLIP/f47f7841f6a91cc5676729a3d125519393d87d1e"
METACLIP_METADATA = Asset(
    "metaclip_metadata.json",
    f"{_METACLIP}/metaclip/metaclip1/metadata.json",
    "git:2691a90d6690440916c87348d2b9548157570a2c",
    "or name a list of your own by filter.metadata=, or take filter.metadata=wordnet",
)
CENTROIDS = {
    scale: Asset(
        f"{scale}_centroids_l14.pt",
        f"{_BASELINES}/{scale}_centroids_l14.pt",
        f"sha256:{digest}",
        "or make centroids of the pool: python -m curate.centroids pool=… out=…",
    )
    for scale, digest in {
        "small": "23c66a05e49ad77283c1e2b33355c7eb088ac332a944c97ff85d5dfd48a5b251",
        "medium": "028b1721b1d0f139c565b6b0ac99f8a1756f4bae89c36b0ec6d1c6ea9b6f112d",
        "large": "04eeab1069d3540c246cf7ce69323147351a474017fc472e4c50a018ca32240b",
        "xlarge": "3f62e5f8ae3a715ce84e422846fcfce1536d184455ea234790c4a6465c4c6726",
    }.items()
}
IMAGENET_TRAIN = [
    Asset(
        f"in1k_clip_vit_l14_{part}.pt",
        f"{_BASELINES}/in1k_clip_vit_l14_{part}.pt",
        f"sha256:{digest}",
        "or name a .npy of embeddings by filter.targets=",
    )
    for part, digest in enumerate(
        (
            "304990fd492f40ba90072b80af78d6e8edcab9d042476ef513e03441cf53743b",
            "72f008e6aa3bfb54174fa322963215337f843fc90fd642a9dccc815dd9e7ee76",
            "83c3cc6503b8a50a22cac7023ca6cd61b130ab9725db2a7519f1bec5cabf5493",
            "83faa289f847799ddcd438e5b74df1cb5973c345674896d10ba31ea48bc63804",
            "067a45f4a140a93371876510a2fd9198a89ac1d194ae4063a51b45a6da69cadf",
        )
    )
]


def fetched(asset: Asset, root: Path | None = None) -> Path:
    """Where an asset lies, downloaded where it does not lie below `root` (the cache) yet.

    It takes its name when it is whole and its digest is right. Processes that need it at once each load it, and the
    last one wins; a command therefore asks once before it starts its workers.

    Raises:
        UserError: no connection, no such file, another content, or no room.
    """
    path = (root or cache()) / "assets" / asset.name
    if path.is_file():
        with path.open("rb") as file:
            _check(asset, _digest(file, asset, path.stat().st_size), f"{path}: delete it, or put the right one there")
        return path
    print(f"fetching {asset.url} to {path}", file=sys.stderr, flush=True)
    try:
        _download(asset, path)
    except UserError:
        raise
    except OSError as error:
        way = f"; fetch {asset.url} elsewhere and copy it to {path}" + (f", {asset.instead}" if asset.instead else "")
        if error.errno is not None:
            raise UserError(f"{path} cannot be written: {error.strerror}; POOLBENCH_CACHE is the folder") from None
        raise UserError(f"{asset.name} is not in the cache and cannot be fetched: {error}{way}") from None
    return path


def _download(asset: Asset, path: Path) -> None:
    with RemoteFile(asset.url, 0, Tally()) as remote, atomic(path, "w+b") as file:
        buffer = bytearray(PIECE)
        while count := remote.readinto(buffer):
            file.write(memoryview(buffer)[:count])
        size = file.tell()
        file.seek(0)
        _check(asset, _digest(file, asset, size), f"{asset.url}: it was changed, or a proxy answers instead")


def _digest(file: IO[bytes], asset: Asset, size: int) -> str:
    kind = asset.digest.partition(":")[0]
    if kind == "sha256":
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]
    digest = hashlib.sha1(b"blob %d\0" % size)
    while piece := file.read(PIECE):
        digest.update(piece)
    return f"git:{digest.hexdigest()}"


def _check(asset: Asset, found: str, what: str) -> None:
    if found != asset.digest:
        raise UserError(f"the digest is {found} instead of {asset.digest} of {what}")
