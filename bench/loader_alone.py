"""One side's training loader with nothing behind it: samples/s, processor time, and where that goes.

    <python of the side> bench/loader_alone.py ours|peer '<LoaderWork as JSON>' <file.json>

Run by bench/train_throughput.py. One worker and one thread, so that a rate is that of one core.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from processes import cpu_seconds
from synthetic import shard_pattern
from throughput_work import DECODE, NORMALISE, READ, RESIZE, STACK, TOKENISE, LoaderWork, Read

SPLIT = 128  # samples that are taken through the loader piece by piece
BUFFER = 64  # samples that are shuffled there; filling it to thousands would weigh more on so few
STREAMS = 8  # few, so that shards are opened and buffers filled within the samples that are left out


def main() -> None:
    side, work, out = sys.argv[1], LoaderWork(**json.loads(sys.argv[2])), Path(sys.argv[3])
    torch.set_num_threads(1)
    open_clip.add_model_config(work.models)
    read = {"ours": ours, "peer": peer}[side](work)
    out.write_text(json.dumps(read._asdict()))


def ours(work: LoaderWork) -> Read:
    """The loader of `python -m train`, with the pinned recipe."""
    from poolbench.models.clip import tokenizer_of
    from poolbench.recipes import pinned  # in the function, as the other side's environment lacks ours
    from poolbench.shards.sources import resolve

    from train.loader import Share, batches
    from train.order import Plan

    recipe, tokenizer = pinned("small"), tokenizer_of(work.model)
    scale, size = (recipe["crop_scale"][0], recipe["crop_scale"][1]), _size(work.model)
    plan = Plan(resolve(work.shards).shards, None, 0, recipe["shuffle_buffer"])
    share = Share(0, 1, work.batch, work.enough, STREAMS, 0, {})
    loader = batches(plan, share, size=size, crop_scale=scale, tokenizer=tokenizer, workers=1, pin=False)
    return timed(work, loader, our_pieces(plan, scale, size, tokenizer))


def peer(work: LoaderWork) -> Read:
    """The loader of open_clip_train, with its defaults for webdataset."""
    from open_clip_train.data import get_wds_dataset
    from open_clip_train.params import parse_args

    options = {
        "train-data": shard_pattern(Path(work.shards)),
        "train-num-samples": work.enough,
        "batch-size": work.batch,
        "workers": 1,
        "model": work.model,
    }
    arguments = parse_args([f"--{key}={value}" for key, value in options.items()] + ["--dataset-resampled"])
    arguments.world_size = 1
    _, transform, _ = open_clip.create_model_and_transforms(work.model, aug_cfg=arguments.aug_cfg)
    tokenizer = open_clip.get_tokenizer(work.model)
    loader = get_wds_dataset(arguments, transform, is_train=True, tokenizer=tokenizer).dataloader
    return timed(work, loader, peer_pieces(arguments.train_data, transform.transforms, tokenizer))


def timed(work: LoaderWork, loader: Iterable[object], pieces: dict[str, float]) -> Read:
    """Read the batches of a loader, the first ones unmeasured."""
    iterator, count = iter(loader), work.samples // work.batch
    for _ in range(max(1, work.left_out // work.batch)):
        next(iterator)
    began, used = time.perf_counter(), cpu_seconds(os.getpid())
    for _ in range(count):
        next(iterator)
    seconds, used = time.perf_counter() - began, cpu_seconds(os.getpid()) - used
    return Read(count * work.batch, seconds, used, pieces)


def our_pieces(plan: Any, scale: tuple[float, float], size: int, tokenizer: Any) -> dict[str, float]:
    """Processor time of our loader's parts, sample by sample in this process."""
    from train.crop import decode, draw_box, resized_crop
    from train.order import CROP, Stream, keyed

    def crop(image: torch.Tensor, place: int) -> torch.Tensor:
        box = draw_box(image.shape[1], image.shape[2], scale, keyed(plan.seed, CROP, 0, place))
        return resized_crop(image, box, size)

    stream, meter = Stream(replace(plan, buffer=BUFFER), 0), Meter()
    batch, captions = torch.ones((SPLIT, 3, size, size), dtype=torch.uint8), []  # memory that has been used before
    for place in range(SPLIT):
        item = meter.run(READ, stream.take, place).item
        picture = meter.run(RESIZE, crop, meter.run(DECODE, decode, item.image), place)
        meter.run(STACK, batch.__setitem__, place, picture)
        captions.append(item.caption)
    meter.run(TOKENISE, tokenizer, captions)
    return meter.pieces


def peer_pieces(shards: str, transforms: Sequence[Any], tokenizer: Any) -> dict[str, float]:
    """Processor time of the parts of open_clip_train's loader."""
    import webdataset
    from open_clip_train.data import ResampledShards2, tarfile_to_samples_nothrow
    from webdataset.autodecode import imagehandler

    stages = [ResampledShards2(shards), tarfile_to_samples_nothrow, webdataset.shuffle(bufsize=BUFFER, initial=1)]
    pipeline, decode, meter = iter(webdataset.DataPipeline(*stages)), imagehandler("pilrgb"), Meter()
    pictures, captions = [], []
    for _ in range(SPLIT):
        sample = meter.run(READ, next, pipeline)
        image = meter.run(RESIZE, transforms[0], meter.run(DECODE, decode, "jpg", sample["jpg"]))
        pictures.append(meter.run(NORMALISE, _through, transforms[1:], image))
        captions.append(meter.run(TOKENISE, tokenizer, sample["txt"].decode())[0])
    meter.run(STACK, torch.stack, pictures)
    return meter.pieces


class Meter:
    """Adds up, by piece, the processor time of `SPLIT` samples, as seconds for 1,000."""

    def __init__(self) -> None:
        self.pieces: dict[str, float] = {}

    def run(self, piece: str, function: Callable[..., Any], *inputs: Any) -> Any:
        """Call a function."""
        began = time.process_time()
        output = function(*inputs)
        self.pieces[piece] = self.pieces.get(piece, 0.0) + (time.process_time() - began) * 1000 / SPLIT
        return output


def _through(transforms: Sequence[Any], image: Any) -> Any:
    for transform in transforms:
        image = transform(image)
    return image


def _size(model: str) -> int:
    """Side of the pictures in pixels."""
    size: int = open_clip.get_model_config(model)["vision_cfg"]["image_size"]
    return size


if __name__ == "__main__":
    main()
