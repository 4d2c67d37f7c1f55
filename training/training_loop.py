"""The training loop, in short steps: set up, next batch, run phases, average, tick.

Every random draw is a function of the seed, the images seen so far and the micro-batch, never of the process that makes
it: N processes train as one does that takes N times as many rounds.
"""

import contextlib
import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dnnlib import UserError
from dnnlib.cli import progress
from dnnlib.util import (
    InterruptFlag,
    Logger,
    atomic_path,
    construct_class_by_name,
    format_time,
    make_output_dir,
    next_run_dir,
    warn_of_write_errors,
)
from metrics import results
from metrics.measuring import Measurer, Settings
from metrics.results import RESULTS_NAME
from metrics.store import Stopped
from torch_utils import distributed, misc, training_stats
from torch_utils.device import peak_memory_gb, select_device
from training import watching
from training.alarms import Alarms
from training.augment import AugmentPipe, adjusted_p
from training.batches import Batch, BatchSource
from training.checkpoint import load_state, save_snapshot, save_state, state_paths
from training.config import ADA_INTERVAL, R1_INTERVAL, TrainingConfig
from training.dataset import HeadDataset
from training.loading import load_network, stored_names
from training.loss import Outcome
from training.run_folder import LOG_NAME, OPTIONS_NAME, find_unfinished, lock_run
from training.schedules import ema_decay
from training.snapshots import Grids, StatsWriter, read_stats

GRADIENT_LIMIT = 1e5  # what infinities in a gradient become
SKIPPED_STEPS_LIMIT = 20  # steps without a finite loss before a run in which most are so is given up


@dataclass
class Phase:
    """One optimisation step out of a batch's several: which loss, which network, how often."""

    name: str
    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    interval: int  # batches from one run to the next; gradients are scaled up by as much


def train(local_rank: int, config: TrainingConfig, run_dir: Path | None = None, restart: bool = False) -> None:
    """Train as `config` says, as one of the processes that were launched together.

    Goes on with the run in `run_dir`.  Where that is None it goes on with an unfinished run of the same options, unless
    `restart`, or begins one in a new folder.
    """
    device = select_device(config.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    leader = distributed.get_rank() == 0
    state = None
    if leader:  # alone: others may see another file system, or the same one a moment later
        run_dir = run_dir or (None if restart else find_unfinished(config))
        state = load_state(run_dir) if run_dir is not None and state_paths(run_dir) else None
    # Before there is a folder, since it may find mistakes.
    trainer = Trainer(config, device, distributed.broadcast_object(state))
    if run_dir is None and leader:
        run_dir = make_output_dir(next_run_dir(config.outdir, config.run_name(trainer.dataset.name)))
    run_dir = distributed.broadcast_object(run_dir)
    lock = lock_run(run_dir) if leader else contextlib.nullcontext()
    log = Logger(run_dir / LOG_NAME) if leader else contextlib.nullcontext()
    with lock, log, InterruptFlag() as interrupt:
        trainer.open(run_dir)
        try:
            trainer.run(interrupt)
        finally:
            trainer.close()


class Trainer:
    """Networks, optimisers, data and counters of a run, and the steps that use them.

    It begins where `config` says, or goes on from `state`, a `state_dict` of a run with the same options.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, state: dict[str, Any] | None = None):
        self.config = config
        self.device = device
        self.rank = distributed.get_rank()
        self.num_shares = distributed.get_world_size()
        self.nimg = self.tick_nimg = config.resume_kimg * 1000
        self.batches = 0
        self.ticks = 0
        self.skipped_steps = 0
        self.last_snapshot: Path | None = None
        self.elapsed = self.tick_elapsed = 0.0  # seconds of the run, and of its tick, before this process
        self._set_up_numerics()
        self.dataset = HeadDataset(**config.dataset_kwargs())
        settings = Settings(**config.metric_settings()) if config.metrics else None
        self.measurer = None if settings is None else Measurer(settings, self.dataset, device)
        self._set_up_networks()
        self._set_up_phases()
        self.stats = training_stats.Collector()
        self.real_signs = training_stats.Collector("Loss/signs/real", keep_previous=False)
        self.not_transferred: dict[str, list[str]] = {}
        self.begun_anew: list[str] = []
        if state is not None:
            self._load_state_dict(state)
        elif config.resume and self.rank == 0:
            self._transfer()
        for module in (self.G, self.D, self.G_ema):
            distributed.broadcast_module(module)

    # Set up

    def _set_up_numerics(self) -> None:
        torch.manual_seed(self.config.seed)
        torch.backends.cudnn.benchmark = not self.config.nobench
        # Layers are float16 or float32 as configured; TensorFloat-32 would be a third kind.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def _set_up_networks(self) -> None:
        config, resolution = self.config, self.dataset.resolution
        self.G = construct_class_by_name(**config.generator_kwargs(resolution)).train().requires_grad_(False).to(self.device)
        self.D = (
            construct_class_by_name(**config.discriminator_kwargs(resolution)).train().requires_grad_(False).to(self.device)
        )
        self.G.neural_rendering_resolution = config.neural_rendering_resolution_initial
        self.G_ema = copy.deepcopy(self.G).eval()
        self.augment_pipe = None
        if config.aug != "noaug":
            self.augment_pipe = AugmentPipe().train().requires_grad_(False).to(self.device)
            self.augment_pipe.p.copy_(torch.as_tensor(config.p if config.aug == "fixed" else 0.0))
        self.loss = construct_class_by_name(
            device=self.device, G=self.G, D=self.D, augment_pipe=self.augment_pipe, **config.loss_kwargs()
        )

    def _transfer(self) -> None:
        """Start from the networks of the snapshot to resume from, as far as names and shapes agree.

        Where there is only the averaged generator, as in exported files, both generators start from it.
        """
        options = dict(trust_pickle=self.config.trust_pickle)
        stored = stored_names(self.config.resume, **options)
        for name in ("G", "D", "G_ema"):
            if name == "D" and name not in stored:
                self.begun_anew.append(name)
                continue
            source = load_network(self.config.resume, name if name in stored else "G_ema", **options)
            self.not_transferred[name] = misc.copy_params_and_buffers(source, getattr(self, name))

    def _set_up_phases(self) -> None:
        """A phase for each network and loss; what comes every few batches is one of its own (Karras 2020, appendix B)."""
        config = self.config
        g_interval = config.density_reg_every if config.density_reg > 0 else None
        self.phases = []
        for letter, module, lr, interval in (("G", self.G, config.glr, g_interval), ("D", self.D, config.dlr, R1_INTERVAL)):
            ratio = 1 if interval is None else interval / (interval + 1)
            betas = (0.0**ratio, 0.99**ratio)
            optimizer = torch.optim.Adam(module.parameters(), lr=lr * ratio, betas=betas, eps=1e-8, fused=True)
            if interval is None:
                self.phases.append(Phase(f"{letter}both", module, optimizer, 1))
            else:
                self.phases.append(Phase(f"{letter}main", module, optimizer, 1))
                self.phases.append(Phase(f"{letter}reg", module, optimizer, interval))

    def open(self, run_dir: Path) -> None:
        """Begin to write in `run_dir`."""
        self.run_dir = run_dir
        self.start_time, self.tick_time = time.time() - self.elapsed, time.time() - self.tick_elapsed
        self.source = BatchSource(self.dataset, self.config, self.device, self.rank, self.num_shares, self.nimg)
        if self.rank == 0:
            self.grids = Grids(self.dataset, self.G.z_dim, self.device, self.config.seed)
            self.probe = watching.Probe(self.dataset, self.grids.images, self.G_ema, self.device, self.config.seed)
            self.writer = StatsWriter(run_dir, self.nimg)
            self.alarms = Alarms()
            for record in read_stats(run_dir):  # what it has said is not said again
                self.alarms.add(record, record["nimg"])
            self._announce()
            self.grids.save_reals(run_dir)

    # State

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs; all processes must call it together.

        Random generators and the sampler have no state of their own: they are functions of `nimg` and the seed.
        """
        return dict(
            options=asdict(self.config),
            batches=self.batches,
            ticks=self.ticks,
            skipped_steps=self.skipped_steps,
            tick_nimg=self.tick_nimg,
            elapsed=time.time() - self.start_time,
            tick_elapsed=time.time() - self.tick_time,
            modules={name: module.state_dict() for name, module in self._modules().items() if module is not None},
            optimizers={phase.name[0]: phase.optimizer.state_dict() for phase in self.phases},  # one for each network
            stats=self.stats.state_dict(),
            real_signs=self.real_signs.state_dict(),
        )

    def _modules(self) -> dict[str, torch.nn.Module | None]:
        """What snapshots and states hold, by its name there."""
        return dict(G=self.G, D=self.D, G_ema=self.G_ema, augment_pipe=self.augment_pipe)

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("nimg", "batches", "ticks", "skipped_steps", "tick_nimg", "elapsed", "tick_elapsed"):
            setattr(self, name, state[name])
        for name, tensors in state["modules"].items():
            getattr(self, name).load_state_dict(tensors)
        for phase in self.phases:
            phase.optimizer.load_state_dict(state["optimizers"][phase.name[0]])
        self.stats.load_state_dict(state["stats"])
        self.real_signs.load_state_dict(state["real_signs"])

    def _announce(self) -> None:
        """Say what is about to be trained, and write the options."""
        config, resolution = self.config, self.dataset.resolution
        options = dict(config.record(resolution), torch_version=torch.__version__)
        with atomic_path(self.run_dir / OPTIONS_NAME) as temporary:
            temporary.write_text(json.dumps(options, indent=2) + "\n")
        print(f"Run folder:  {self.run_dir}" + (f", going on at {self.nimg / 1000:g} kimg" if self.batches else ""))
        print(
            f"Data:        {self.dataset.name}, {len(self.dataset)} views of {resolution} pixels with mirrored ones and repeats"
        )
        if self.measurer is not None:
            for line in self.measurer.settings.check(self.dataset):
                print(f"Metrics:     {line}")
        share = f"{config.rounds} x {config.micro_batch} samples each per batch"
        print(f"Device:      {self.device}, {self.num_shares} process(es), {share}")
        for name in ("G", "D"):
            print(f"\n{name}:\n{misc.summarize(getattr(self, name))}")
        for name, tensors in self.not_transferred.items():
            if tensors:
                print(f"\n{name}: {len(tensors)} tensors find none of their shape in {config.resume}, such as {tensors[0]}")
        for name in self.begun_anew:
            print(f"\n{name}: there is none in {config.resume}; it begins anew")
        print(f"\nTraining to {config.kimg:g} kimg; Ctrl-C finishes the step, saves and stops.\n")

    # The loop

    def run(self, interrupt: InterruptFlag) -> None:
        """Train until `kimg` are seen, the time is up or Ctrl-C is pressed; save in any case."""
        end = self.config.kimg * 1000
        deadline = time.monotonic() + 60 * (self.config.minutes or math.inf)
        stopping = False
        while self.nimg < end and not stopping:
            target = self._next_tick_end()
            with progress(
                total=target - self.nimg, unit="img", desc=self._tick_name(), disable=self.rank != 0, leave=False
            ) as bar:
                while self.nimg < target and not stopping:
                    self.step()
                    bar.update(self.config.batch)
                    if self.rank == 0:
                        bar.set_postfix_str(self._pace(bar, deadline), refresh=False)
                    stopping = distributed.any_rank(bool(interrupt) or time.monotonic() >= deadline)
            if self.nimg >= target:
                self.tick()
            if stopping or self.nimg >= end or (self.ticks - 1) % self.config.snap == 0:
                self.save()
                if self.measurer is not None and not stopping:
                    stopping = self.measure(interrupt)
        if self.rank == 0:
            saved = f"the last snapshot is {self.last_snapshot}" if self.last_snapshot else "nothing could be saved"
            print(f"\n{'Stopped' if stopping else 'Finished'} at {self.nimg / 1000:g} kimg; {saved}")

    def _next_tick_end(self) -> int:
        """Images seen when the next tick is due: after one batch for the first, which shows that all works."""
        length = self.config.tick * 1000 if self.ticks else self.config.batch
        return math.ceil(min(self.tick_nimg + length, self.config.kimg * 1000))

    def _tick_name(self) -> str:
        return f"tick {self.ticks}, {self.nimg / 1000:g} of {self.config.kimg:g} kimg"

    def _pace(self, bar: Any, deadline: float) -> str:
        """Time to the end of the run or to the `deadline`, and memory."""
        rate = bar.format_dict["rate"] or bar.n / bar.format_dict["elapsed"]
        left = min((self.config.kimg * 1000 - self.nimg) / rate, deadline - time.monotonic())
        return f"end in {format_time(max(left, 0))}, {peak_memory_gb(self.device):.1f} GB"

    def step(self) -> None:
        """One global batch through all phases that are due, then the averaged weights."""
        batch = self.source.next_batch()
        for phase in self.phases:
            if self.batches % phase.interval == 0:
                self.run_phase(phase, batch)
        self.update_ema()
        self.nimg += self.config.batch
        self.batches += 1
        if self.config.aug == "ada" and self.batches % ADA_INTERVAL == 0:
            self.real_signs.update()
            p = adjusted_p(
                self.augment_pipe.p,
                self.real_signs["Loss/signs/real"],
                self.config.target,
                self.config.batch * ADA_INTERVAL,
                self.config.ada_kimg,
            )
            self.augment_pipe.p.copy_(p)

    def run_phase(self, phase: Phase, batch: Batch) -> None:
        """Gradients of all rounds and processes, averaged, and one step of the optimiser."""
        phase.optimizer.zero_grad(set_to_none=True)
        phase.module.requires_grad_(True)
        outcomes: list[Outcome] = []
        for index in range(self.config.rounds):
            gen_z, gen_c = self.source.draw_latents(phase.name, self.nimg, index, self.G.z_dim)
            outcome = self.loss.accumulate_gradients(
                phase=phase.name,
                real_img=batch.images[index],
                real_seg=batch.masks[index],
                real_c=batch.labels[index],
                gen_z=gen_z,
                gen_c=gen_c,
                gain=phase.interval,
                cur_nimg=self.nimg,
            )
            outcomes.append(outcome)
            if outcome.observed is not None:
                watching.report_observed(outcome.observed, self.G.grid_model.self_adaptive_camera)
        phase.module.requires_grad_(False)
        self._average(phase, outcomes)
        phase.optimizer.step()

    def _average(self, phase: Phase, outcomes: list[Outcome]) -> None:
        """Mean of gradients and latents over rounds and processes, in one exchange; then the running means of latents.

        Where a loss is not finite anywhere, the step is skipped everywhere: its gradients are zeroed, and with a first
        moment of zero Adam then moves nothing.  No value is read back, so that a GPU never waits.
        """
        parameters = [p for p in phase.module.parameters() if p.grad is not None]
        bad = torch.stack([~torch.isfinite(outcome.loss) for outcome in outcomes]).sum()
        parts = [p.grad.flatten() for p in parameters] + [bad.to(torch.float32)[None]]
        means = [outcome.means for outcome in outcomes if outcome.means is not None]
        if means:
            parts += [torch.stack(rows).sum(dim=0) for rows in zip(*means)]  # w, shift
        flat = distributed.sum_over_ranks(torch.cat(parts)).div_(self.config.rounds * self.num_shares)
        of_network = flat[: sum(p.grad.numel() for p in parameters)]
        training_stats.report0(f"Gradients/nonfinite/{phase.name}", watching.nonfinite_share(of_network))
        torch.nan_to_num(flat, nan=0.0, posinf=GRADIENT_LIMIT, neginf=-GRADIENT_LIMIT, out=flat)
        training_stats.report0(f"Gradients/norm/{phase.name}", of_network.norm())  # as the step takes them
        *gradients, bad, w, shift = flat.split([part.numel() for part in parts] + ([] if means else [0, 0]))
        skip = bad > 0
        training_stats.report0("Progress/skipped_steps", skip)
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.masked_fill_(skip, 0).reshape(parameter.shape)
        if means:
            self._track(self.G.backbone.mapping, w, skip)
            if self.G.grid_model.self_adaptive_camera:
                self._track(self.G.t_mapping, shift, skip)

    def _track(self, mapping: torch.nn.Module, mean: torch.Tensor, skip: torch.Tensor) -> None:
        mapping.track(torch.where(skip, mapping.w_avg, mean))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged generator toward the trained one; its buffers are copies."""
        decay = ema_decay(self.nimg, self.config.batch, self.config.ema_kimg, self.config.ema_rampup)
        misc.update_average(self.G_ema, self.G, decay)
        resolution = self.loss.moment(self.nimg).rendering_resolution
        for generator in (self.G, self.G_ema):
            generator.neural_rendering_resolution = resolution

    # Ticks

    def tick(self) -> None:
        """A line and a record of how it goes, and what there is to warn of."""
        if self.rank == 0 and self.nimg // watching.LOOK_EVERY > self.tick_nimg // watching.LOOK_EVERY:
            self.probe.report(self.G_ema, self.config.micro_batch)
        now = time.time()
        seconds, images = now - self.tick_time, self.nimg - self.tick_nimg
        training_stats.report0("Progress/tick", self.ticks)
        training_stats.report0("Progress/kimg", self.nimg / 1000)
        training_stats.report0("Progress/augment", 0 if self.augment_pipe is None else self.augment_pipe.p)
        training_stats.report0("Timing/total_sec", now - self.start_time)
        training_stats.report0("Timing/sec_per_tick", seconds)
        training_stats.report0("Timing/sec_per_kimg", seconds / images * 1000)
        training_stats.report(f"Throughput/rank{self.rank}_img_per_sec", images / self.num_shares / seconds)
        training_stats.report("Resources/peak_memory_gb", peak_memory_gb(self.device))
        self.stats.update()
        if self.rank == 0:
            print(self._status())
            record = {**self.stats.as_dict(), **watching.derived(self.stats)}
            for alarm in self.alarms.add(record, self.nimg):
                print(f"Alarm: {alarm.line}")
            with warn_of_write_errors("this tick's record"):
                self.writer.write(record, self.nimg)
        self._check_skipped_steps()
        self.ticks += 1
        self.tick_time, self.tick_nimg = time.time(), self.nimg

    def _check_skipped_steps(self) -> None:
        skipped = round(self.stats["Progress/skipped_steps"] * self.stats.num("Progress/skipped_steps"))
        if skipped and self.rank == 0:
            print(f"{skipped} steps of this tick were skipped: their loss was not finite")
        self.skipped_steps += skipped
        if self.skipped_steps > SKIPPED_STEPS_LIMIT and self.stats["Progress/skipped_steps"] > 0.5:
            raise UserError(
                f"training has broken down: {self.skipped_steps} steps had no finite loss; --resume a snapshot from before, "
                "with lower --glr and --dlr, more --gamma, or --g_num_fp16_res 0 --sr_num_fp16_res 0 --d_num_fp16_res 0"
            )

    def save(self) -> None:
        """Pictures, networks, state; a full disk costs what does not fit, not the run nor what was saved before."""
        state = self.state_dict()
        if self.rank != 0:
            return
        with warn_of_write_errors("the pictures of this moment"):
            self.grids.save_fakes(self.run_dir, f"fakes{self.nimg // 1000:06d}", self.G_ema, self.config.micro_batch)
        with warn_of_write_errors("a snapshot of the networks"):
            self._save_networks()
        with warn_of_write_errors("the state of training"):
            save_state(self.run_dir, self.nimg, state)

    def measure(self, interrupt: InterruptFlag) -> bool:
        """Measure the averaged generator, into metrics.jsonl; whether Ctrl-C ended that before it was done."""
        start = time.time()
        path = self.run_dir / RESULTS_NAME
        known = results.known(path) if self.rank == 0 else []
        about = dict(network=self.last_snapshot and str(self.last_snapshot), images_seen=self.nimg)
        try:
            for line in self.measurer.measure(self.G_ema, about, known, lambda: bool(interrupt)):
                with warn_of_write_errors("this metric"):
                    results.report(line, path)
        except Stopped:
            if self.rank == 0:
                print(f"Metrics of {self.last_snapshot} were left unfinished: calc_metrics.py --network … goes on with them")
            return True
        self.tick_time += time.time() - start  # a tick's time is that of training
        return False

    def _status(self) -> str:
        stats = self.stats
        return "  ".join(
            (
                f"tick {self.ticks:<5d}",
                f"kimg {self.nimg / 1000:<8g}",
                f"time {format_time(stats['Timing/total_sec']):<12s}",
                f"sec/kimg {stats['Timing/sec_per_kimg']:<8.2f}",
                f"memory {stats['Resources/peak_memory_gb']:<6.2f}",
                f"G {stats['Loss/G/loss']:<6.3f}",
                f"D {stats['Loss/D/loss']:<6.3f}",
                f"real {stats['Loss/scores/real']:<6.2f}",
                f"fake {stats['Loss/scores/fake']:<6.2f}",
                f"augment {stats['Progress/augment']:.3f}",
            )
        )

    def _save_networks(self) -> None:
        training_set = dict(class_name="training.dataset.HeadDataset", **self.config.dataset_kwargs())
        path = self.run_dir / f"network-snapshot-{self.nimg // 1000:06d}.pkl"
        save_snapshot(path, self._modules(), dict(training_set_kwargs=training_set))
        self.last_snapshot = path

    def close(self) -> None:
        """Close files and end the workers of the loader."""
        self.source.close()
        if self.rank == 0:
            self.writer.close()
