"""Which perceptual hash: copies found, and other pictures' distances; and our probes on photographs.

    pip install pdqhash scikit-image          # beside poolbench[overlap], in an environment of its own
    python bench/original_hashes.py <folder of the demo's evaluation sets>

Pictures are those of the sets, equal files once; 150 of them are edited. "Others" is the distance from each picture to
the nearest one of another set, OpenMoji's two counting as one.
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pdqhash  # type: ignore[import-not-found]
import skimage
import sklearn.datasets
from evaluation_report import table
from PIL import Image, ImageOps

from poolbench.shards.pictures import opened, rgb
from poolbench.shards.samples import Sample, read_shard

from curate.overlaps import hashes
from curate.overlaps.calibrate import EDITS, _encoded, _scaled
from curate.overlaps.search import MOST

CHOSEN = 150
HASHES: dict[str, Callable[[Image.Image], np.ndarray]] = {
    "phash, 64 bits": lambda image: imagehash.phash(image).hash.ravel(),
    "phash, 256 bits": lambda image: imagehash.phash(image, 16).hash.ravel(),
    "dhash, 256 bits": lambda image: imagehash.dhash(image, 16).hash.ravel(),
    "PDQ, 256 bits": lambda image: pdqhash.compute(np.asarray(image))[0].astype(bool),
}
COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": lambda image: _encoded(image, "JPEG", 90),
    "JPEG 50": lambda image: _encoded(image, "JPEG", 50),
    "half": lambda image: _scaled(image, 0.5, 0.5),
    "three times": lambda image: _scaled(image, 3, 3),
    "2 % cut": EDITS["2 % cut off each side"],
    "5 % cut": EDITS["5 % cut off each side"],
    "mirrored": ImageOps.mirror,
}


def evaluation(folder: Path) -> tuple[list[Image.Image], np.ndarray]:
    """Pictures of all sets, equal files once, and a name of their style."""
    found: dict[bytes, str] = {}
    for tar in sorted(folder.glob("*/test/*.tar")):
        for sample in read_shard(str(tar)):
            if isinstance(sample, Sample):
                found.setdefault(sample.picture(), tar.parts[-3].replace("_retrieval", ""))
    return [rgb(opened(data)) for data in found], np.array(list(found.values()))


def photographs(side: int) -> list[Image.Image]:
    """Those that scikit-image and scikit-learn carry, at most so many pixels wide and high."""
    paths = [*(Path(skimage.__file__).parent / "data").iterdir()]
    paths += [*(Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg")]
    found = []
    for path in sorted(paths):
        try:
            image = rgb(opened(path.read_bytes()))
        except Exception:  # what is no picture of the web's formats
            continue
        if min(image.size) >= 200:
            image.thumbnail((side, side))
            found.append(image)
    return found


def main() -> None:
    images, styles = evaluation(Path(sys.argv[1]))
    chosen = np.random.default_rng(0).permutation(len(images))[:CHOSEN]
    rows = []
    for name, of in HASHES.items():
        every = np.array([of(image) for image in images])
        far = (every[:, None] != every[None]).sum(-1)
        others = np.where(styles[:, None] != styles[None], far, far.shape[0]).min(1)
        shares = [
            np.mean([(of(edit(images[at])) != every[at]).sum() <= every.shape[1] // 8 for at in chosen])
            for edit in COPIES.values()
        ]
        rows.append((name, *(f"{share:.0%}" for share in shares), f"{others.min()}, {np.quantile(others, 0.01):.0f}"))
    print(f"{len(images)} pictures, found within an eighth of the bits:\n")
    print("\n".join(table(("hash", *COPIES, "others: nearest, 1 % quantile"), rows)))
    photos = photographs(512)
    print(f"\n{len(photos)} photographs, {hashes.PROBES} probes, found within {MOST} bits:\n")
    probes = [hashes.probes_of(image.convert("L")) for image in photos]
    lines = []
    for name, edit in EDITS.items():
        copies = [hashes.hash_of(edit(image).convert("L")) for image in photos]
        share = np.mean([hashes.distances(one, own).min() <= MOST for one, own in zip(copies, probes, strict=True)])
        lines.append((name, f"{share:.0%}"))
    print("\n".join(table(("copies", "found"), lines)))
    large = [image for image in photographs(1280) if min(image.size) >= 512]
    files = []
    for image in large:
        image.save(file := io.BytesIO(), "JPEG", quality=85)
        files.append(file.getvalue())
    times, hashed = [], []
    for decode in (lambda data: rgb(opened(data)).convert("L"), hashes.grey):
        began = time.process_time()
        hashed.append([hashes.hash_of(decode(data)) for data in files])
        times.append(1000 * (time.process_time() - began) / len(files))
    far = [int(hashes.distances(one, other)) for one, other in zip(*hashed, strict=True)]
    print(
        f"\n{len(large)} JPEGs of 512 to 1,280 pixels a side: {times[0]:.1f} ms decoded whole and hashed, "
        f"{times[1]:.1f} ms decoded smaller; the hashes differ in {int(np.median(far))} bits as a median, "
        f"{max(far)} at most"
    )


if __name__ == "__main__":
    main()
