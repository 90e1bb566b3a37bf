"""What a run will need and all that is wrong with it, told on any machine before a GPU is held (`dry_run=true`).

Nothing is written, no GPU is touched, and of the data only the listing and a few samples are read.
docs/plan_a_run.md says how each number is made and how good it is.
"""

import math
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poolbench.errors import UserError, first_line
from poolbench.files import digest_file, read_lines
from poolbench.machine import MAX_WORKERS, slow_bfloat16
from poolbench.models.clip import create
from poolbench.models.cost import Cost, cost_of
from poolbench.models.names import check_name, model_names
from poolbench.run_record import InitOfRun, RunRecord, SubsetOfRun
from poolbench.shards.members import BLOCK
from poolbench.shards.samples import Problem, Reasons, read_shard
from poolbench.shards.sources import Data, Shard, resolve
from poolbench.subset import Subset
from poolbench.text import aligned

from train.config import SLOW_BFLOAT16, TrainConfig, problems
from train.evaluation import task_keys
from train.init import fill, init_of, is_tag
from train.run_log import describe, differences, read_run

PEAKS = {"A100": 312e12, "H100": 989e12}  # FLOP/s, dense bfloat16
_REACHED = 0.4  # of the peak, by a well-fed training
_SAMPLE = 40_000  # bytes, where no data are given: a picture of some 512 pixels and its caption
_LOOKS, _LOOK = 8, 100  # shards that are looked into, and samples of each that are read
_SIMILARITY = {"clip": 16, "hyperbolic": 80}  # bytes that the loss holds for each, both ways
_SORTED_LIMIT = 2**24  # uids of a subset up to which its order is checked here: a few hundred MB

Row = tuple[str, str, str]  # what, how much, why


class Pool(NamedTuple):
    """The data, as far as a glance tells. `samples` is 0 where they are not known."""

    shards: int
    bytes: int
    samples: float
    sample: float  # bytes of one in a tar
    item: float  # bytes of one in memory: picture and caption
    share: float  # of the samples that the subset chooses


class Report:
    """What is told in the end: rows of the plan, what is worth a thought, and what is wrong."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        # Counting GPUs asks the driver alone and opens none; without a launcher a run takes all of them.
        self.world = max(1, torch.cuda.device_count()) if config.world_size is None else config.world_size
        self.rows: list[Row] = []
        self.warnings: list[str] = []
        self.errors = problems(config, self.world)

    @property
    def local(self) -> int:
        """Samples of a batch for each process, rounded up where they do not share it evenly."""
        return -(-self.config.recipe.batch_size // self.world)

    @property
    def micro(self) -> int:
        """Samples that a device holds at a time."""
        return -(-self.local // self.config.efficiency.accumulate)

    def add(self, what: str, value: str, why: str = "") -> None:
        self.rows.append((what, value, why))


def dry_run(config: TrainConfig) -> int:
    """Print the plan to stdout, and to stderr a line for each warning and each error; return 2 where there is an error,
    else 0."""
    report = examined(config)
    print(aligned(report.rows))
    sys.stdout.flush()
    for line in report.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in report.errors:
        print(f"error: {line}", file=sys.stderr)
    return 2 if report.errors else 0


def examined(config: TrainConfig) -> Report:
    """Everything that can be told of `config` without starting it."""
    report = Report(config)
    report.add("run", str(config.folder), f"scale {config.scale}, {config.precision}, seed {config.seed}")
    for line in config.deviations:
        report.warnings.append(f"unofficial: {line}")
    data = _told(report, lambda: resolve(config.data, config.weights)) if config.data is not None else None
    subset = _subset(report)
    pool = _pool(report, data, subset)
    _check_tasks(report)
    init = _init(report)
    before = _told(report, lambda: read_run(config.folder))
    if before is not None:
        _compare(report, before, data, init)
    cost = _cost(report)
    if _countable(report):
        _steps(report)
        seconds = _time(report, cost, before) if cost else None
        _reading(report, pool, seconds)
        if cost:
            _memory(report, cost)
    _disk(report, cost)
    if config.precision == "amp_bf16" and config.world_size is None and not torch.cuda.device_count():
        report.warnings += [SLOW_BFLOAT16] * slow_bfloat16()
    return report


def _told(report: Report, ask: Any) -> Any:
    """The answer, or None with what is wrong added to the report."""
    try:
        return ask()
    except UserError as error:
        report.errors.append(str(error))
    except OSError as error:
        report.errors.append(f"{error.filename or report.config.folder}: {error.strerror}")
    return None


def _countable(report: Report) -> bool:
    """Whether steps and shares can be told at all; if not, the reason is among the errors."""
    recipe = report.config.recipe
    counts = (recipe.batch_size, recipe.samples, recipe.streams, recipe.shuffle_buffer)
    return min(*counts, report.world, report.config.efficiency.accumulate) >= 1


def _cost(report: Report) -> Cost | None:
    """What the model costs, None where it is not known or cannot be built here."""
    config = report.config
    name, known = config.recipe.model, len(report.errors)
    _told(report, lambda: check_name(name))
    if len(report.errors) > known:
        return None
    precision = config.precision if config.precision in ("amp", "amp_bf16") else "fp32"
    try:
        return cost_of(name, precision, config.efficiency.activation_checkpointing)
    except Exception as error:  # open_clip's less common models raise anything when they are built without weights
        report.warnings.append(f"what {name} costs cannot be told: {first_line(error)}")
        return None


def _steps(report: Report) -> None:
    config, local = report.config, report.local
    recipe, accumulate = config.recipe, config.efficiency.accumulate
    last = recipe.samples % recipe.batch_size
    given = "GPUs of this machine" if config.world_size is None else "as given"
    if config.world_size is None and not torch.cuda.device_count():
        given = "this machine has no GPU; world_size= for a plan of another"
    report.add("processes", f"{report.world:,}", given)
    ending = f", the last of {last:,}" if last else ""
    report.add("steps", f"{config.steps:,}", f"of {recipe.batch_size:,} samples{ending}")
    uneven = "" if recipe.batch_size % report.world == 0 else "; not even"
    parts = f"in {accumulate} micro-batches of {report.micro:,}" if accumulate > 1 else "in one piece"
    report.add("batch per device", f"{local:,}", f"samples, {parts}{uneven}")


def _time(report: Report, cost: Cost, before: RunRecord | None) -> float | None:
    """Rows of work and hours; the seconds of the run where a rate is given or measured."""
    config, samples = report.config, report.config.recipe.samples
    tokens = cost.image_tokens + cost.text_tokens
    caption = f"{cost.text_tokens} of a caption, of which padding costs nothing"
    what = f"{cost.image_tokens} of a picture + {caption}" if cost.image_tokens else caption
    report.add("tokens", _si(samples * tokens), f"{what}, {samples:,} samples")
    forward = cost.work.image_flops + cost.work.text_flops
    again = (config.efficiency.accumulate > 1) + config.efficiency.activation_checkpointing
    flops = samples * forward * (3 + again)
    parts = f"{cost.work.image_flops / 1e9:.4g} + {cost.work.text_flops / 1e9:.4g} G for picture and caption"
    report.add("FLOPs", _si(flops), f"{3 + again} x forward ({parts} of full length)")
    rate, why = _rate(report, before)
    if rate is not None:
        seconds = samples / rate / report.world
        report.add("hours", _hours(seconds), f"{_hours(seconds * report.world)} device-hours; {why}")
        return seconds
    report.add("hours", "not known", "rate= (samples a second of one device) gives them as you measured; estimates:")
    far = ", from which fp32 is far" if config.precision == "fp32" else ""
    for name, peak in PEAKS.items():
        seconds = flops / (peak * _REACHED * report.world)
        why = f"{_hours(seconds * report.world)} device-hours, at {_REACHED:.0%} of its bfloat16 peak{far}"
        report.add(f"  on {name}", _hours(seconds), why)
    return None


def _rate(report: Report, before: RunRecord | None) -> tuple[float | None, str]:
    """Samples a second of one device, and where that is from; None where nobody has told or measured it."""
    config = report.config
    if config.rate is not None and config.rate > 0:
        return config.rate, f"at rate={config.rate:g} samples a second of a device, as given"
    lines = _told(report, lambda: read_lines(config.folder / "metrics.jsonl")) if before else None
    if not lines or not before:
        return None, ""
    rate = statistics.median(line["samples_per_second"] for line in lines) / before.world_size
    where = f"median of {len(lines):,} steps in {config.folder}, {before.world_size} x {before.device}"
    return rate, f"at {rate:.4g} samples a second of a device, measured: {where}"


class _Streams(NamedTuple):
    """How the virtual streams fall to the processes and their data workers (docs/order.md)."""

    mine: int  # of a process
    processes: int  # that read one and the same stream
    readers: int  # in a process, each with a buffer of its own: one for each stream, or more


def _streams(report: Report) -> _Streams:
    """Also tells what the streams cost where there are too few of them."""
    config, world = report.config, report.world
    streams = config.recipe.streams
    common = math.gcd(world, streams)  # a process meets every common-th stream
    mine = streams // common
    workers = MAX_WORKERS if config.efficiency.workers is None else config.efficiency.workers
    if mine < workers:
        report.warnings.append(
            f"each of {world:,} processes has {mine:,} of the {streams:,} streams: of more data workers than that "
            f"(up to {workers}) several read one and the same; efficiency.workers={mine} reads each once"
        )
    if world > common:
        report.warnings.append(
            f"{world:,} processes do not divide the {streams:,} streams: {world // common:,} of them read each one"
        )
    return _Streams(mine, world // common, max(mine, workers))


def _reading(report: Report, pool: Pool, seconds: float | None) -> None:
    """What the data workers read and hold, and whether there are shards enough for them."""
    recipe, streams = report.config.recipe, _streams(report)
    if 0 < pool.shards < recipe.streams:
        report.warnings.append(
            f"{pool.shards:,} shards for {recipe.streams:,} streams: several read one shard at a time, and a sample "
            "may come twice in a batch; more, smaller shards mix better"
        )
    copies = streams.processes * streams.readers / streams.mine
    size = pool.sample * recipe.samples / pool.share * copies
    most = "up to " if streams.readers > streams.mine and report.config.efficiency.workers is None else ""
    times = f", {most}{copies:.3g} times over" if copies > 1 else ""
    pace = f", {_bytes(size / seconds)} a second over all processes" if seconds else ""
    known = "" if pool.samples else f", if a sample takes {_bytes(_SAMPLE)}"
    report.add("data read", _bytes(size), f"whole run{times}{pace}{known}")
    if pool.samples:
        drawn = recipe.samples / pool.share * copies / (pool.samples / pool.shards)
        report.add("shard reads", f"{drawn:,.0f}", f"{drawn / pool.shards:.3g} of each of the {pool.shards:,} shards")
    held = streams.readers * recipe.shuffle_buffer * pool.item
    why = f"of main memory for each process: {most}{streams.readers:,} of {recipe.shuffle_buffer:,} samples"
    report.add("shuffle buffers", _bytes(held), f"{why}; {_bytes(held * report.world)} in all")


def _memory(report: Report, cost: Cost) -> None:
    """Bytes of one device, part by part; estimates but for the first."""
    config, local, micro = report.config, report.local, report.micro
    batch, kept = config.recipe.batch_size, cost.activations
    state = cost.parameters * (12 + 4 * (report.world > 1))  # the gradients are buffered on their way to others
    gradients = 4 * cost.parameters
    work = kept.fixed + micro * (kept.sample + kept.block)
    pictures = local * 3 * cost.side**2 * 5
    loss = _SIMILARITY.get(config.objective, 0) * local * batch + 16 * batch * cost.work.features
    # In one plain backward pass the gradients come as the activations go; else both are there at a time.
    both = config.efficiency.accumulate > 1 or config.efficiency.activation_checkpointing
    total = state + pictures + (gradients + work + loss if both else max(gradients, work + loss))
    report.add("device memory", _bytes(total), "estimate, without CUDA's own GB and what fragments; of it:")
    moving = ", gradients on their way" if report.world > 1 else ""
    report.add("  model", _bytes(state), f"{_si(cost.parameters)} parameters: weights, 2 moments{moving}")
    report.add("  gradients", _bytes(gradients), "" if both else "not added: they come as the activations go")
    again = ", the rest computed again" if config.efficiency.activation_checkpointing else ""
    report.add("  activations", _bytes(work), f"{_bytes(kept.sample)} for each of {micro:,} samples{again}")
    report.add("  pictures", _bytes(pictures), f"{local:,} of {cost.side} x {cost.side}, as bytes and as float32")
    report.add("  loss", _bytes(loss), f"{local:,} x {batch:,} similarities, both ways, and all features")
    if config.memory is not None and total > config.memory * 1e9 > 0:
        report.errors.append(
            f"about {_bytes(total)} are needed of a device's memory={config.memory:g} GB; raise efficiency.accumulate, "
            "set efficiency.activation_checkpointing=true, or use more processes"
        )


def _disk(report: Report, cost: Cost | None) -> None:
    """Checkpoints, room for them, and permission to write them."""
    config = report.config
    target = config.folder / "checkpoints"
    place = next(path for path in (target, *target.parents) if _exists(path))
    try:
        # Trying is the only way to know: access rights say little of a full, a remote or a read-only file system.
        with tempfile.TemporaryDirectory(dir=place, prefix=".poolbench-"):
            pass
        free = shutil.disk_usage(place).free + sum(file.stat().st_size for file in target.glob("step_*.pt"))
    except OSError as error:
        report.errors.append(f"out={config.out}: nothing can be written in {place}: {error.strerror}; choose another")
        return
    if cost is None or not _countable(report) or config.efficiency.checkpoint_every < 1:
        return
    one, count = 12 * cost.parameters, _checkpoints(config)
    needed, every = one * (count + 1), config.efficiency.checkpoint_every
    report.add("checkpoint", _bytes(one), f"weights and 2 moments in float32, every {every:,} steps")
    report.add("disk", _bytes(needed), f"{count:,} of them kept, one being written; {_bytes(free)} free in {place}")
    if needed > free:
        report.errors.append(f"{place} has {_bytes(free)} free, the checkpoints need {_bytes(needed)}")


def _checkpoints(config: TrainConfig) -> int:
    """How many checkpoints lie there in the end."""
    options = config.efficiency
    written = -(-config.steps // options.checkpoint_every)
    kept = options.keep_checkpoints
    if options.keep_every:
        kept += config.steps // math.lcm(options.keep_every, options.checkpoint_every)
    return min(written, max(1, kept))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a folder that may not be entered
        return False


def _subset(report: Report) -> Subset | None:
    path = report.config.subset
    if path is None:
        return None
    subset: Subset | None = _told(report, lambda: Subset(path))
    if subset is None:
        return None
    if subset.size <= _SORTED_LIMIT:
        _told(report, subset.check_sorted)
    else:
        report.warnings.append(f"subset {path} is large; whether it is sorted is checked when the run starts")
    return subset


def _pool(report: Report, data: Data | None, subset: Subset | None) -> Pool:
    """Rows of the data, and what a few samples of them tell."""
    config, unknown = report.config, Pool(0, 0, 0.0, _SAMPLE, _SAMPLE, 1.0)
    if data is None:
        if config.data is None:
            own = "the embedded demo pool" if config.scale == "tiny" else "not given"
            report.add("data", own, "not looked at: shards, their reading, repeats and subset= are not checked")
        return unknown
    size = sum(shard.size for shard in data.shards)
    for source in data.sources:
        gaps = f", {source.missing:,} names of the pattern do not exist" if source.missing else ""
        report.add("data", source.spec, f"{source.shards:,} shards, {_bytes(source.bytes)}{gaps}")
    reasons = Reasons()
    found = [look for shard in _spread(data.shards) if (look := _look_into(report, shard, reasons)) is not None]
    if not found:
        report.errors.append(
            f"data={config.data}: no sample with a picture and a caption in the shards looked into{reasons.commonest()}"
        )
        return unknown
    mean = sum(look.size for look in found) / sum(look.samples for look in found)
    item = sum(look.item * look.samples for look in found) / sum(look.samples for look in found)
    samples = size / mean
    report.add("pool", _si(samples), f"samples, estimated from {len(found)} shards; digest {data.digest[:12]}")
    chosen, share = samples, 1.0
    if subset is not None:
        chosen, share = float(subset.size), min(1.0, subset.size / samples)
        report.add("subset", f"{subset.size:,}", f"uids, {subset.size / samples:.1%} of the pool")
    what = "the subset" if subset is not None else "the pool"
    report.add("repeats", f"{config.recipe.samples / chosen:.3g}", f"times {what} is seen, on average; an estimate")
    return Pool(len(data.shards), size, samples, mean, item, share)


class _Look(NamedTuple):
    samples: int
    size: int  # bytes that they take in their tar
    item: float  # mean bytes of picture and caption


def _spread(shards: list[Shard]) -> list[Shard]:
    """A few shards, evenly spaced."""
    count = min(_LOOKS, len(shards))
    return [shards[place * len(shards) // count] for place in range(count)]


def _look_into(report: Report, shard: Shard, reasons: Reasons) -> _Look | None:
    """The first samples of a shard, None where none of them can be trained on."""
    samples, usable, size, items, uids = 0, 0, 0, 0, 0
    whole, lacks = True, ""
    for sample in read_shard(shard.path):
        if isinstance(sample, Problem):
            reasons.add(sample)
            if not sample.key:
                report.warnings.append(f"{shard.path}: {sample.reason}")
            continue
        samples += 1
        size += sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for data in sample.members.values())
        try:
            items += len(sample.picture()) + len(sample.caption().encode())
            usable += 1
        except ValueError as error:
            reasons.add(Problem(shard.path, sample.key, str(error)))
        try:
            sample.record()
            uids += 1
        except ValueError as error:
            lacks = lacks or str(error)
        if samples == _LOOK:
            whole = False
            break
    if report.config.subset is not None and samples and not uids:
        what = f"no .json with a uid{'' if lacks.startswith('no ') else f' ({lacks})'}"
        report.errors.append(f"{shard.path} has {what}, which subset= needs")
    return _Look(samples, shard.size if whole else size, items / usable) if usable else None


def _check_tasks(report: Report) -> None:
    """What evaluation.check_tasks refuses, without making the demo's sets."""
    options = report.config.evaluate
    if not options.words or any("evaluate.tasks" in line for line in report.errors):
        return
    keys = _told(report, lambda: task_keys(options.words))
    if keys and options.data is None:
        others = [key for key in keys if key not in task_keys(("demo",))]
        if others:
            report.errors.append(f"evaluate.data= is needed for {others[0]}: the folder that holds the tasks' folders")


def _init(report: Report) -> InitOfRun | None:
    """Whether the run could start from the weights that it is given; None where that is not known here."""
    config = report.config
    if config.init is None or config.recipe.model not in model_names():
        return None
    named, model = config.init, config.recipe.model
    if _told(report, lambda: is_tag(named, model)):
        report.add("init", named, f"a pretrained tag of {model}; its weights are looked at when the run starts")
    if not Path(named).exists():
        return None
    init: InitOfRun | None = _told(report, lambda: init_of(config))
    if init is not None:
        report.add("init", init.checkpoint, f"weights of {model}; SHA-256 {init.sha256[:12]}")
        _told(report, lambda: fill(create(model), init, report.warnings.append))
    return init


def _compare(report: Report, before: RunRecord, data: Data | None, init: InitOfRun | None) -> None:
    """Whether the run that the folder holds is this one."""
    config = report.config
    if not config.resume:
        report.errors.append(f"{config.folder} exists and resume=false; choose another name= or remove it")
        return
    # What is not known here is taken to be as it was.
    data = data or Data([], [], before.data.digest)
    subset = None
    if config.subset is not None and Path(config.subset).is_file():
        subset = SubsetOfRun(path=config.subset, digest=digest_file(config.subset), size=0)
    init = before.init if config.init is not None and init is None else init
    changed = differences(before, describe(config, data, subset, report.world, torch.device("cpu"), init))
    if changed:
        report.errors.append(
            f"{config.folder} is another run, choose another name=; what differs: {'; '.join(changed)}"
        )
    elif before.status == "complete":
        report.warnings.append(f"{config.folder} is complete; there is nothing to do")
    else:
        report.warnings.append(f"{config.folder} exists; the run goes on behind step {before.steps:,}")


def _si(value: float) -> str:
    """158 E for 1.58e20: three digits and a prefix."""
    for prefix in ("", " k", " M", " G", " T", " P", " E", " Z"):
        if abs(value) < 999.5:
            return f"{value:.3g}{prefix}"
        value /= 1000
    return f"{value:.3g} Y"


def _bytes(value: float) -> str:
    text = _si(value)
    return f"{text}B" if " " in text else f"{text} B"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
