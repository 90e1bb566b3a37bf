"""A training run from its configuration to its last checkpoint, in every process that takes part."""

import math
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from poolbench.errors import UserError, unwritable
from poolbench.fields import ConventionsUsed
from poolbench.files import claimed, digest_file, leftovers
from poolbench.machine import default_workers, slow_bfloat16
from poolbench.models.clip import compile_blocks, compiling_failed, create, preprocess_of, tokenizer_of, width_of
from poolbench.models.conventions import conventions_of
from poolbench.models.hyperbolic import IN_CHECKPOINTS
from poolbench.models.names import check_name
from poolbench.processes.preemption import STOPPED, GracePeriodOver, Preemption, preemption_signals
from poolbench.processes.world import World, gather, joined, on_first, share
from poolbench.run_record import Bad, CheckpointOfRun, InitOfRun, RunRecord, SubsetOfRun, write_record
from poolbench.shards.samples import Reasons
from poolbench.shards.sources import Data, resolve
from poolbench.shards.workers import advice_on
from poolbench.subset import Subset

from train import checkpoint
from train.config import SLOW_BFLOAT16, TrainConfig, check
from train.evaluation import check_tasks, evaluate, how_to_repeat
from train.hyperbolic import Curved
from train.init import fill, init_of
from train.loader import Batch, Share, batches
from train.order import Cursor, Plan
from train.run_log import BadLog, RunLog, describe, differences, now, read_run, say
from train.step import Later, Stepper, learning_rate, make_optimizer

DATA_GRACE_PERIOD = 5.0  # seconds that a process goes on waiting for data once it is asked to stop
JUDGED_AFTER = (1000, 100)  # samples and shards; before, a single bad one would be too large a share


class Totals(NamedTuple):
    """Sums over all processes and steps, as checkpoints keep them. A shard counts each time it is drawn."""

    bad_samples: int = 0
    bad_shards: int = 0
    shards: int = 0
    retries: int = 0


def train(config: TrainConfig) -> int:
    """Run `config` to its end, from its newest checkpoint where there is one, and return the exit status: 0, 1 where an
    evaluation failed, or preemption.STOPPED where a signal asked to stop and the same command again goes on.

    Raises:
        UserError: anything the user can mend; on all processes alike.
    """
    with preemption_signals() as preemption, joined() as world, ExitStack() as held:
        check(config, world.size)
        check_name(config.recipe.model)
        data, start = on_first(world, partial(_prepare, config, world, held))
        if start.status == "complete":
            return 0
        return _Run(config, world, preemption, data, start).finish()


def _prepare(config: TrainConfig, world: World, held: ExitStack) -> tuple[Data, RunRecord]:
    """List the data and decide what this start is: a new run, the continuation of one, or nothing left to do.

    The run's folder is this process's until `held` closes.
    """
    check_tasks(config.evaluate)
    data = resolve(config.data, config.weights)
    subset = None
    if config.subset is not None:
        chosen = Subset(config.subset)
        chosen.check_sorted()
        subset = SubsetOfRun(path=config.subset, digest=digest_file(config.subset), size=chosen.size)
    run = describe(config, data, subset, world.size, world.device, init_of(config))
    before = read_run(config.folder)
    if before is not None:
        if not config.resume:
            raise UserError(f"{config.folder} exists and resume=false; choose another name= or remove it")
        changed = differences(before, run)
        if changed:
            raise UserError(f"{config.folder} is another run, choose another name=; what differs: {'; '.join(changed)}")
        if before.status == "complete":
            say(f"{config.folder} is complete; nothing to do")
            return data, before
        kept = ("started", "seconds", "samples_seen", "steps", "bad", "checkpoint")
        run = run.model_copy(update={name: getattr(before, name) for name in kept})
    for source in data.sources:
        gaps = f", {source.missing} names of the pattern do not exist" if source.missing else ""
        say(f"data: {source.spec}: {source.shards} shards, {source.bytes / 1e9:.3g} GB{gaps}")
    if run.init is not None:
        say(f"init: {run.init.checkpoint}, weights of {run.init.model}, SHA-256 {run.init.sha256[:12]}")
    for line in run.deviations:
        say(f"unofficial: {line}")
    if world.device.type == "cpu" and config.precision == "amp_bf16" and slow_bfloat16():
        say(f"warning: {SLOW_BFLOAT16}")
    held.enter_context(claimed(config.folder))
    for name in ("run.json", "metrics.jsonl", "checkpoints/step_*"):
        for path in leftovers(config.folder / name):
            path.unlink()
    write_record(config.folder, run)  # before any other file: the folder is known for a run's from here on
    return data, run


class _Run:
    """The state of a run in one process."""

    def __init__(self, config: TrainConfig, world: World, preemption: Preemption, data: Data, run: RunRecord) -> None:
        self.config, self.world, self.preemption = config, world, preemption
        recipe, efficiency = config.recipe, config.efficiency
        model = create(recipe.model, seed=config.seed, device=world.device)
        if efficiency.activation_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]
        self.model = model
        self.curved = Curved(width_of(recipe.model)).to(world.device) if config.objective == "hyperbolic" else None
        self.optimizer = make_optimizer(nn.ModuleList([model, self.curved]) if self.curved else model, recipe)
        self.preprocess = preprocess_of(model)
        self.step, self.totals, self.cursors = 0, Totals(), dict[int, Cursor]()
        scaler_state = self._resume(run.init)
        self.first_step = self.step
        if efficiency.compile:
            compile_blocks(model)
        self.stepper = Stepper(
            model,
            self.optimizer,
            self.preprocess,
            precision=config.precision,
            accumulate=efficiency.accumulate,
            rank=world.rank,
            world_size=world.size,
            curved=self.curved,
        )
        self.learned = tuple(self.stepper.learned)
        if scaler_state:
            self.stepper.scaler.load_state_dict(scaler_state)
        self.plan = Plan(
            data.shards, Subset(config.subset) if config.subset else None, config.seed, recipe.shuffle_buffer
        )
        self.bad_log = BadLog(config.folder, world.rank)
        self.run_log: RunLog | None = None
        conventions = ConventionsUsed(**conventions_of(model)._asdict())
        on_first(world, partial(self._record, run.model_copy(update={"conventions": conventions})))

    def _record(self, run: RunRecord) -> None:
        self.run_log = RunLog(self.config, run, self.step)

    def finish(self) -> int:
        """Train to the end of the budget, or until asked to stop, and return the exit status.

        Whatever ends the run early, what is recorded until then is closed in order.
        """
        self.preemption.defer()
        try:
            if not self._train():
                return self._stopped()
            return on_first(self.world, self._end)
        except (OSError, RuntimeError, MemoryError) as error:
            advice = self._advice(error)
            if advice is None:
                raise
            raise UserError(advice) from None
        finally:
            self._close()

    def _advice(self, error: Exception) -> str | None:
        """What the user can do about a full disk, too little memory, a compiler that fails, or a data worker that
        died."""
        if isinstance(error, torch.OutOfMemoryError):
            return (
                f"out of memory on {self.world.device}; raise efficiency.accumulate, which is "
                f"{self.config.efficiency.accumulate}, or set efficiency.activation_checkpointing=true"
            )
        if unwritable(error):
            return (
                f"{error.filename or self.config.folder} cannot be written: {error.strerror}; the last checkpoint is "
                "intact, so make room and start the same command again"
            )
        if self.config.efficiency.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return compiling_failed(error)
        advice = advice_on(error, "efficiency.workers")
        return advice and f"{advice}; the same command again goes on from the last checkpoint"

    def _close(self) -> None:
        if self.run_log is not None:
            self.run_log.close()

    def _train(self) -> bool:
        """Train to the end and evaluate; False where a request to stop came first, behind a checkpoint."""
        if 0 < self.step < self.config.steps and not self._evaluate():  # where the interruption came before the scores
            return False
        with closing(self._batches()) as batches:
            if not self._steps(batches):
                return False
        self._judge(self._samples(self.step), (0, 0))
        self._save()
        return self._evaluate()

    def _steps(self, batches: Generator[Batch]) -> bool:
        """Take the steps to come, with a checkpoint now and then; False where asked to stop."""
        config, pending, stopping = self.config, None, False
        before = time.perf_counter()
        for batch in self._awaited(batches):
            waited = time.perf_counter() - before
            rate = learning_rate(self.step, config.steps, config.recipe)
            loss = self.stepper.step(batch.images, batch.texts, rate)
            self.step += 1
            self.cursors = batch.cursors
            sums = self._sum(loss, batch, waited)
            # The sums of a step are read while the next one runs, so that the device never waits for the log, nor for
            # the batch that is put together meanwhile.
            if pending is not None:
                stopping = self._log(*pending)
            pending = (self.step, rate, sums, time.perf_counter() - before)
            due = self.step % config.efficiency.checkpoint_every == 0
            if (due or stopping) and self.step < config.steps:
                stopping |= self._log(*pending)
                pending = None
                self._save()
                if stopping or not self._evaluate():
                    return False
            before = time.perf_counter()
        if pending is not None:
            self._log(*pending)
            if self.step < config.steps:  # asked to stop while data did not come
                self._save()
        return self.step == config.steps

    def _awaited(self, batches: Generator[Batch]) -> Iterator[Batch]:
        """The batches, until a request to stop finds this process waiting for one that may never come."""
        while True:
            try:
                with self.preemption.waiting(DATA_GRACE_PERIOD):
                    batch = next(batches, None)
            except GracePeriodOver:
                if self.world.size == 1:
                    return
                sys.exit(self.preemption.end())  # the others wait for us in a step: there is no state of all to save
            if batch is None:
                return
            yield batch

    def _stopped(self) -> int:
        on_first(self.world, self._close)
        if self.world.first:
            say(f"{self.config.folder}: stopped behind step {self.step:,}; the same command again goes on from there")
        # All processes stop, though perhaps only one was asked to.
        return self.preemption.end() if self.preemption.asked else STOPPED

    def _end(self) -> int:
        config, run_log = self.config, self.run_log
        assert run_log is not None
        run_log.write(status="complete", finished=now())
        assert run_log.run.checkpoint is not None
        path = config.folder / run_log.run.checkpoint.path
        say(f"{config.folder}: {self._samples(self.step):,} samples seen in {self.step:,} steps, checkpoint {path}")
        failed = run_log.failed_evaluations() if config.evaluate.words else []
        if failed:
            say(how_to_repeat(config, failed, self.world.device))
        self._close()  # while the others wait, so that all processes leave together
        return int(bool(failed))

    def _batches(self) -> Generator[Batch]:
        config, world = self.config, self.world
        share = Share(
            rank=world.rank,
            world_size=world.size,
            batch_size=config.recipe.batch_size,
            samples=config.recipe.samples,
            streams=config.recipe.streams,
            first_step=self.step,
            cursors=self.cursors,
        )
        workers = config.efficiency.workers
        yield from batches(
            self.plan,
            share,
            size=self.preprocess.size,
            crop_scale=(config.recipe.crop_scale[0], config.recipe.crop_scale[1]),
            tokenizer=tokenizer_of(config.recipe.model),
            workers=default_workers(world.local_size) if workers is None else workers,
            pin=world.device.type == "cuda",
        )

    def _sum(self, loss: torch.Tensor, batch: Batch, waited: float) -> Later:
        """Loss, the counts of Totals, seconds waited for data and requests to stop, summed over the processes, and the
        numbers that the stepper has learned."""
        self.bad_log.add(batch.problems)
        bad_shards = sum(not problem.key for problem in batch.problems)
        asked = self.preemption.asked is not None
        counts = Totals(len(batch.problems) - bad_shards, bad_shards, batch.shards, batch.retries)
        mine = [*counts, waited, asked]
        sums = torch.cat(
            [
                loss.double().view(1),
                torch.tensor(mine, dtype=torch.float64).to(loss.device, non_blocking=True),
            ]
        )
        if self.world.size > 1:
            dist.all_reduce(sums)
        return Later(torch.cat([sums, *(number.double().view(1) for number in self.stepper.learned.values())]))

    def _log(self, step: int, rate: float, sums: Later, seconds: float) -> bool:
        """Write the line of a step; return whether any process was asked to stop by then."""
        numbers, own = sums.read(), len(self.learned)
        loss, *counts, waited, asked = numbers[:-own]
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}: the training diverged; the checkpoints before are intact"
            )
        self.totals = Totals(*(total + round(count) for total, count in zip(self.totals, counts, strict=True)))
        samples = self._samples(step)
        if self.run_log is not None:
            self.run_log.log(
                {
                    "step": step,
                    "loss": loss / self.world.size,
                    "learning_rate": rate,
                    **dict(zip(self.learned, numbers[-own:], strict=True)),
                    "samples": samples,
                    "samples_per_second": round((samples - self._samples(step - 1)) / seconds, 3),
                    "data_wait": round(waited / self.world.size, 6),
                    "bad_samples": self.totals.bad_samples,
                    "bad_shards": self.totals.bad_shards,
                    "retries": self.totals.retries,
                }
            )
        self._judge(samples, JUDGED_AFTER)
        return bool(asked)

    def _judge(self, samples: int, least: tuple[int, int]) -> None:
        """Stop, on all processes at the same step, when too much of the data cannot be read."""
        limit, totals = self.config.max_bad_share, self.totals
        for what, bad, of, floor in (
            ("samples", totals.bad_samples, samples, least[0]),
            ("shards", totals.bad_shards, totals.shards, least[1]),
        ):
            if bad > limit * max(of, floor):
                names, reasons = self.config.folder / "bad_samples.jsonl", Reasons()
                for part in gather(self.world, self.bad_log.reasons):  # all say the same line
                    reasons.update(part)
                raise UserError(
                    f"{bad} of {of} {what} cannot be read, more than max_bad_share={limit}; {names} names them"
                    f"{reasons.commonest()}"
                )

    def _samples(self, step: int) -> int:
        return min(step * self.config.recipe.batch_size, self.config.recipe.samples)

    def _save(self) -> None:
        """Write a checkpoint from the first process, with the cursors of all, and name it in run.json."""
        cursors: dict[int, Cursor] = {}
        for part in gather(self.world, self.cursors):
            cursors.update(part)

        def write() -> None:
            state = {
                "step": self.step,
                "name": self.config.recipe.model,
                "state_dict": self.model.state_dict(),
                **({IN_CHECKPOINTS: self.curved.state_dict()} if self.curved else {}),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.stepper.scaler.state_dict(),
                "totals": list(self.totals),
                "cursors": {index: list(cursor) for index, cursor in cursors.items()},
            }
            folder = self.config.folder
            place, efficiency = folder / "checkpoints", self.config.efficiency
            if self.step == self.first_step:  # interrupted behind its last checkpoint, which has scores by its digest
                path = checkpoint.path_of(place, self.step)
                sha256 = digest_file(path)
            else:
                path, sha256 = checkpoint.save(
                    place, self.step, state, efficiency.keep_checkpoints, efficiency.keep_every
                )
            assert self.run_log is not None
            self.run_log.write(
                steps=self.step,
                samples_seen=self._samples(self.step),
                bad=Bad(samples=self.totals.bad_samples, shards=self.totals.bad_shards),
                checkpoint=CheckpointOfRun(path=path.relative_to(folder).as_posix(), sha256=sha256),
            )

        on_first(self.world, write)

    def _evaluate(self) -> bool:
        """Score the checkpoint of this step from the first process, if that is wanted and not done yet; False where a
        request to stop ended it."""
        return not self.config.evaluate.words or on_first(self.world, self._score)

    def _score(self) -> bool:
        assert self.run_log is not None
        if self.run_log.evaluated(self.step):
            return True
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()  # the evaluation needs room on the same GPU
        path = checkpoint.path_of(self.config.folder / "checkpoints", self.step)
        scores = evaluate(self.config, path, self.world.device, lambda: self.preemption.asked is not None)
        if scores is None:
            return False
        self.run_log.add_scores(self.step, scores.values, scores.failed)
        return True

    def _resume(self, init: InitOfRun | None) -> dict[str, Any]:
        """Take up the newest checkpoint, if any, else the weights that are given to start from; return the state of the
        gradient scaler."""
        folder = self.config.folder / "checkpoints"
        path = on_first(self.world, partial(checkpoint.newest, folder, say))
        if path is None:
            if init is not None:
                on_first(self.world, partial(fill, self.model, init, say))
                share(self.world, self.model.state_dict().values())
            return {}
        if not all(gather(self.world, path.is_file())):
            raise UserError(f"{path} is not there for every process; out= must be a folder that all nodes share")
        state = checkpoint.load(path)
        self.model.load_state_dict(state["state_dict"])
        if self.curved:
            self.curved.load_state_dict(state[IN_CHECKPOINTS])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.totals = state["step"], Totals(*state["totals"])
        self.cursors = {int(index): Cursor(*cursor) for index, cursor in state["cursors"].items()}
        if self.world.first:
            say(f"continuing behind step {self.step:,} from {path}")
        scaler: dict[str, Any] = state["scaler"]
        return scaler
