"""The training loop, in short steps: set up, next batch, run phases, average, tick.

Every random draw is a function of the seed, the images seen so far and the micro-batch, never of the process that makes
it: N processes train as one does that takes N times as many rounds.
"""

import contextlib
import copy
import json
import random
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch

from dnnlib import UserError
from dnnlib.cli import progress
from dnnlib.util import Logger, construct_class_by_name, format_time, make_output_dir, next_run_dir
from torch_utils import distributed, misc, training_stats
from torch_utils.device import peak_memory_gb, select_device
from training.augment import AugmentPipe, adjusted_p
from training.checkpoint import save_snapshot
from training.config import ADA_INTERVAL, R1_INTERVAL, TrainingConfig
from training.dataset import HeadDataset, ShareSampler
from training.loading import load_network
from training.loss import LatentMeans
from training.schedules import ema_decay
from training.snapshots import Grids, StatsWriter

GRADIENT_LIMIT = 1e5  # what infinities in a gradient become
_STREAMS = {"z": 0, "Gmain": 1, "Greg": 2, "Gboth": 3, "Dmain": 4, "Dreg": 5, "Dboth": 6}  # independent random streams


@dataclass
class Phase:
    """One optimisation step out of a batch's several: which loss, which network, how often."""

    name: str
    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    interval: int  # batches from one run to the next; gradients are scaled up by as much


@dataclass
class Batch:
    """One process's share of a global batch, a list entry per round, on the device."""

    images: list[torch.Tensor]  # [micro, 3, H, H] in [-1, 1]
    masks: list[torch.Tensor]  # [micro, 1, H, H] in [0, 1]
    labels: list[torch.Tensor]  # [micro, 25]


def train(local_rank: int, config: TrainingConfig) -> None:
    """Train as `config` says, in a new run folder, as one of the processes that were launched together."""
    trainer = Trainer(config, select_device(config.device, local_rank))  # before there is a folder: it may find mistakes
    leader = distributed.get_rank() == 0
    run_dir = None
    if leader:
        run_dir = make_output_dir(next_run_dir(config.outdir, config.run_name(trainer.dataset.name)))
    run_dir = distributed.broadcast_object(run_dir)
    log = Logger(run_dir / "log.txt") if leader else contextlib.nullcontext()
    with log, InterruptFlag() as interrupt:
        trainer.open(run_dir)
        try:
            trainer.run(interrupt)
        finally:
            trainer.close()


class InterruptFlag:
    """True once Ctrl-C was pressed inside the block; a second press interrupts at once."""

    def __init__(self):
        self._pressed = False

    def __bool__(self) -> bool:
        return self._pressed

    def __enter__(self) -> "InterruptFlag":
        self._previous = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _press(self, *_: Any) -> None:
        self._pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Trainer:
    """Networks, optimisers, data and counters of a run, and the steps that use them."""

    def __init__(self, config: TrainingConfig, device: torch.device):
        self.config = config
        self.device = device
        self.rank = distributed.get_rank()
        self.num_shares = distributed.get_world_size()
        self.nimg = self.tick_nimg = config.resume_kimg * 1000
        self.batches = 0
        self.ticks = 0
        self._set_up_numerics()
        self.dataset = HeadDataset(
            config.img_data, config.seg_data, config.mirror, config.min_yaw, config.max_yaw, config.back_repeat
        )
        self._set_up_networks()
        self._set_up_phases()
        self.batch_iterator = self._batches()
        self.stats = training_stats.Collector()
        self.real_signs = training_stats.Collector("Loss/signs/real", keep_previous=False)

    # Set up

    def _set_up_numerics(self) -> None:
        random.seed(self.config.seed)
        np.random.seed(self.config.seed)
        torch.manual_seed(self.config.seed)
        torch.backends.cudnn.benchmark = not self.config.nobench
        # Layers are float16 or float32 as configured; TensorFloat-32 would be a third kind.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def _set_up_networks(self) -> None:
        config, resolution = self.config, self.dataset.resolution
        self.G = construct_class_by_name(**config.generator_kwargs(resolution)).train().requires_grad_(False).to(self.device)
        self.D = construct_class_by_name(**config.discriminator_kwargs(resolution)).train().requires_grad_(False).to(self.device)
        self.G.neural_rendering_resolution = config.neural_rendering_resolution_initial
        self.G_ema = copy.deepcopy(self.G).eval()
        self.skipped: dict[str, list[str]] = {}
        if config.resume:
            self._transfer()
        for module in (self.G, self.D, self.G_ema):
            distributed.broadcast_module(module)
        self.augment_pipe = None
        if config.aug != "noaug":
            self.augment_pipe = AugmentPipe().train().requires_grad_(False).to(self.device)
            self.augment_pipe.p.copy_(torch.as_tensor(config.p if config.aug == "fixed" else 0.0))
        self.loss = construct_class_by_name(
            device=self.device, G=self.G, D=self.D, augment_pipe=self.augment_pipe, **config.loss_kwargs()
        )

    def _transfer(self) -> None:
        """Start from the networks of the snapshot to resume from, as far as names and shapes agree."""
        for name in ("G", "D", "G_ema"):
            source = load_network(self.config.resume, name, trust_pickle=self.config.trust_pickle)
            self.skipped[name] = misc.copy_params_and_buffers(source, getattr(self, name))

    def _set_up_phases(self) -> None:
        """One phase for each network and loss; a regulariser every few batches is a phase of its own (Karras 2020, appendix B)."""
        config = self.config
        g_interval = config.density_reg_every if config.density_reg > 0 else None
        self.phases = []
        for letter, module, lr, interval in (("G", self.G, config.glr, g_interval), ("D", self.D, config.dlr, R1_INTERVAL)):
            ratio = 1 if interval is None else interval / (interval + 1)
            betas = (0.0**ratio, 0.99**ratio)
            optimizer = torch.optim.Adam(module.parameters(), lr=lr * ratio, betas=betas, eps=1e-8)
            if interval is None:
                self.phases.append(Phase(f"{letter}both", module, optimizer, 1))
            else:
                self.phases.append(Phase(f"{letter}main", module, optimizer, 1))
                self.phases.append(Phase(f"{letter}reg", module, optimizer, interval))

    def open(self, run_dir: Path) -> None:
        """Begin to write in `run_dir`."""
        self.run_dir = run_dir
        self.start_time = self.tick_time = time.time()
        if self.rank == 0:
            self.grids = Grids(self.dataset, self.G.z_dim, self.device, self.config.seed)
            self.writer = StatsWriter(run_dir)
            self._announce()
            self.grids.save_reals(run_dir)

    def _announce(self) -> None:
        """Say what is about to be trained, and write the options."""
        config, resolution = self.config, self.dataset.resolution
        options = dict(
            asdict(config),
            generator_kwargs=config.generator_kwargs(resolution),
            discriminator_kwargs=config.discriminator_kwargs(resolution),
            loss_kwargs=config.loss_kwargs(),
            torch_version=torch.__version__,
        )
        (self.run_dir / "training_options.json").write_text(json.dumps(options, indent=2) + "\n")
        print(f"Run folder:  {self.run_dir}")
        print(f"Data:        {self.dataset.name}, {len(self.dataset)} views of {resolution} pixels, mirrored ones and repeats included")
        print(f"Device:      {self.device}, {self.num_shares} process(es), {config.rounds} x {config.micro_batch} samples each per batch")
        for name in ("G", "D"):
            print(f"\n{name}:\n{misc.summarize(getattr(self, name))}")
        for name, tensors in self.skipped.items():
            if tensors:
                print(f"\n{name}: {len(tensors)} tensors of {config.resume} have no counterpart of their shape here, such as {tensors[0]}")
        print(f"\nTraining to {config.kimg:g} kimg; Ctrl-C finishes the step, saves and stops.\n")

    # The loop

    def run(self, interrupt: InterruptFlag) -> None:
        """Train until `kimg` are seen or Ctrl-C is pressed; save either way."""
        stopping = False
        while not stopping:
            target = self._next_tick_end()
            with progress(total=target - self.nimg, unit="img", desc=self._tick_name(), disable=self.rank != 0, leave=False) as bar:
                while self.nimg < target and not stopping:
                    self.step()
                    bar.update(self.config.batch)
                    bar.set_postfix_str(self._pace(bar), refresh=False)
                    stopping = distributed.any_rank(bool(interrupt))
            stopped_early = stopping
            stopping = stopping or self.nimg >= self.config.kimg * 1000
            self.tick(save=stopping or self.ticks % self.config.snap == 0)
        if self.rank == 0:
            why = "Interrupted" if stopped_early else "Finished"
            print(f"\n{why} at {self.nimg / 1000:.1f} kimg; the last snapshot is {self.snapshot_path}")

    def _next_tick_end(self) -> int:
        """Images seen when the next tick is due: at once for the first, which shows that all works."""
        start = self.nimg
        length = self.config.tick * 1000 if self.ticks else self.config.batch
        return int(min(start + length, max(self.config.kimg * 1000, start + 1)))

    def _tick_name(self) -> str:
        return f"tick {self.ticks}, {self.nimg / 1000:.1f} of {self.config.kimg:g} kimg"

    def _pace(self, bar: Any) -> str:
        """Time to the end of the run, and memory."""
        rate = bar.format_dict["rate"] or bar.n / bar.format_dict["elapsed"]
        left = format_time(max(self.config.kimg * 1000 - self.nimg, 0) / rate)
        return f"end in {left}, {peak_memory_gb(self.device):.1f} GB"

    def step(self) -> None:
        """One global batch through all phases that are due, then the averaged weights."""
        batch = next(self.batch_iterator)
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

    def _batches(self) -> Iterator[Batch]:
        """This process's shares of the global batches, without end."""
        config = self.config
        sampler = ShareSampler(
            len(self.dataset), config.micro_batch, self.rank, self.num_shares, config.seed, start=config.resume_kimg * 1000
        )
        loader = torch.utils.data.DataLoader(
            self.dataset,
            batch_size=config.micro_batch,
            sampler=sampler,
            num_workers=config.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=2,
            persistent_workers=True,
            worker_init_fn=_ignore_interrupt,
        )
        micro_batches = iter(loader)
        while True:
            try:
                images, masks, labels = zip(*(self._to_device(next(micro_batches)) for _ in range(config.rounds)))
            except UserError as error:  # with the worker's traceback around it
                raise UserError(str(error).strip().splitlines()[-1].removeprefix("dnnlib.util.UserError: ")) from None
            yield Batch(list(images), list(masks), list(labels))

    def _to_device(self, items: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image, mask, label = (tensor.to(self.device, non_blocking=True) for tensor in items)
        return image.to(torch.float32) / 127.5 - 1, mask.to(torch.float32) / 255, label

    def run_phase(self, phase: Phase, batch: Batch) -> None:
        """Gradients of all rounds and processes, averaged, and one step of the optimiser."""
        phase.optimizer.zero_grad(set_to_none=True)
        phase.module.requires_grad_(True)
        means: list[LatentMeans] = []
        for index in range(self.config.rounds):
            gen_z, gen_c = self._draw_latents(phase, index)
            result = self.loss.accumulate_gradients(
                phase=phase.name,
                real_img=batch.images[index],
                real_seg=batch.masks[index],
                real_c=batch.labels[index],
                gen_z=gen_z,
                gen_c=gen_c,
                gain=phase.interval,
                cur_nimg=self.nimg,
            )
            if result is not None:
                means.append(result)
        phase.module.requires_grad_(False)
        self._average(phase, means)
        phase.optimizer.step()

    def _draw_latents(self, phase: Phase, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Seed all generators for the micro-batch number `index` of this process, and draw its latents and cameras."""
        micro_batch = index * self.num_shares + self.rank
        rng = np.random.default_rng([self.config.seed, self.nimg, _STREAMS[phase.name], micro_batch])
        torch.manual_seed(int(rng.integers(2**63)))
        size = self.config.micro_batch
        z = rng.standard_normal([size, self.G.z_dim], dtype=np.float32)
        c = np.stack([self.dataset.label(i) for i in rng.integers(len(self.dataset), size=size)])
        return self._from_host(z), self._from_host(c)

    def _from_host(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _average(self, phase: Phase, means: list[LatentMeans]) -> None:
        """Mean of gradients and latents over rounds and processes, in one exchange; then the running means of latents."""
        parameters = [p for p in phase.module.parameters() if p.grad is not None]
        latents = [torch.cat([torch.stack([m.w for m in means]).sum(0), torch.stack([m.shift for m in means]).sum(0)])] if means else []
        flat = torch.cat([p.grad.flatten() for p in parameters] + latents)
        flat = distributed.sum_over_ranks(flat) / (self.config.rounds * self.num_shares)
        flat = flat.nan_to_num(nan=0.0, posinf=GRADIENT_LIMIT, neginf=-GRADIENT_LIMIT)
        for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters] + [t.numel() for t in latents])):
            parameter.grad = grad.reshape(parameter.shape)
        if latents:
            w, shift = flat[-latents[0].numel() :].split([self.G.w_dim, 3])
            self.G.backbone.mapping.track(w)
            if self.G.grid_model.self_adaptive_camera:
                self.G.t_mapping.track(shift)

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged generator toward the trained one; its buffers are copies."""
        decay = ema_decay(self.nimg, self.config.batch, self.config.ema_kimg, self.config.ema_rampup)
        for average, current in zip(self.G_ema.parameters(), self.G.parameters()):
            average.copy_(current.lerp(average, decay))
        for average, current in zip(self.G_ema.buffers(), self.G.buffers()):
            average.copy_(current)
        self.G_ema.neural_rendering_resolution = self.loss.moment(self.nimg).rendering_resolution

    # Ticks

    def tick(self, save: bool) -> None:
        """A line and a record of how it goes; with `save`, grids and a snapshot."""
        now = time.time()
        seconds, images = now - self.tick_time, self.nimg - self.tick_nimg
        training_stats.report0("Progress/tick", self.ticks)
        training_stats.report0("Progress/kimg", self.nimg / 1000)
        training_stats.report0("Progress/augment", 0 if self.augment_pipe is None else self.augment_pipe.p)
        training_stats.report0("Timing/total_sec", now - self.start_time)
        training_stats.report0("Timing/sec_per_tick", seconds)
        training_stats.report0("Timing/sec_per_kimg", seconds / images * 1000)
        training_stats.report0("Resources/peak_memory_gb", peak_memory_gb(self.device))
        self.stats.update()
        if self.rank == 0:
            self.writer.write(self.stats.as_dict(), self.nimg)
            print(self._status())
            if save:
                self.grids.save_fakes(self.run_dir, f"fakes{self.nimg // 1000:06d}", self.G_ema, self.config.micro_batch)
                self._save_networks()
        self.ticks += 1
        self.tick_time, self.tick_nimg = time.time(), self.nimg

    def _status(self) -> str:
        stats = self.stats
        return "  ".join(
            (
                f"tick {self.ticks:<5d}",
                f"kimg {self.nimg / 1000:<8.1f}",
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

    @property
    def snapshot_path(self) -> Path:
        """Where the snapshot of this moment is, or would be."""
        return self.run_dir / f"network-snapshot-{self.nimg // 1000:06d}.pkl"

    def _save_networks(self) -> None:
        modules = dict(G=self.G, D=self.D, G_ema=self.G_ema, augment_pipe=self.augment_pipe)
        training_set = dict(
            class_name="training.dataset.HeadDataset", img_data=str(self.config.img_data), seg_data=str(self.config.seg_data)
        )
        save_snapshot(self.snapshot_path, modules, dict(training_set_kwargs=training_set))

    def close(self) -> None:
        """Close files and end the workers of the loader."""
        self.batch_iterator.close()
        if self.rank == 0:
            self.writer.close()


def _ignore_interrupt(_: int) -> None:
    """Leave Ctrl-C to the training process: the loader's workers must live until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
