"""What one process gets of each global batch: real samples, read by workers, and latents, drawn from the seed.

Global batches are cut into micro-batches; number m of a batch belongs to process m mod the number of processes.  What is in
it depends on its number and on the images seen before, not on who computes it.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dnnlib import UserError
from training.config import TrainingConfig
from training.dataset import HeadDataset, ShareSampler
from training.images import from_uint8
from training.loss import PHASES

LOST_WORKERS_LIMIT = 10  # workers that may be replaced in a run


@dataclass
class Batch:
    """One process's share of a global batch, a list entry per round, on the device."""

    images: list[torch.Tensor]  # [micro, 3, H, H] in [-1, 1]
    masks: list[torch.Tensor]  # [micro, 1, H, H] in [0, 1]
    labels: list[torch.Tensor]  # [micro, 25]


class BatchSource:
    """Batches for the process `rank` of `num_shares`, from image number `nimg` of the endless order on."""

    def __init__(
        self, dataset: HeadDataset, config: TrainingConfig, device: torch.device, rank: int, num_shares: int, nimg: int
    ):
        self.dataset = dataset
        self.config = config
        self.device = device
        self.rank = rank
        self.num_shares = num_shares
        self._nimg = nimg
        self._lost_workers = 0
        self._micro_batches = self._start_workers()

    def next_batch(self) -> Batch:
        """The next share; UserError if a picture cannot be read, or workers die again and again."""
        while True:
            try:
                images, masks, labels = zip(*(self._to_device(next(self._micro_batches)) for _ in range(self.config.rounds)))
            except UserError as error:  # with the worker's traceback around it
                raise UserError(str(error).strip().splitlines()[-1].removeprefix("dnnlib.util.UserError: ")) from None
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                self._replace_workers(str(error).splitlines()[0])
                continue
            self._nimg += self.config.batch
            return Batch(list(images), list(masks), list(labels))

    def draw_latents(self, phase: str, nimg: int, index: int, z_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        """z [micro, z_dim] and cameras [micro, 25] of this process's micro-batch number `index` in `phase` of `loss.PHASES`.

        Also seeds all of torch's generators for what the losses draw.
        """
        micro_batch = index * self.num_shares + self.rank
        rng = np.random.default_rng([self.config.seed, nimg, PHASES.index(phase), micro_batch])
        torch.manual_seed(int(rng.integers(2**63)))
        size = self.config.micro_batch
        z = rng.standard_normal([size, z_dim], dtype=np.float32)
        c = np.stack([self.dataset.label(i) for i in rng.integers(len(self.dataset), size=size)])
        return self._from_host(z), self._from_host(c)

    def close(self) -> None:
        """End the workers."""
        self._micro_batches = None

    def _start_workers(self) -> Iterator[list[torch.Tensor]]:
        config = self.config
        loader = torch.utils.data.DataLoader(
            self.dataset,
            batch_size=config.micro_batch,
            sampler=ShareSampler(len(self.dataset), config.micro_batch, self.rank, self.num_shares, config.seed, self._nimg),
            num_workers=config.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=2,
            worker_init_fn=_ignore_interrupt,
        )
        handler = signal.getsignal(signal.SIGCHLD)
        micro_batches = iter(loader)
        # PyTorch's own handler would raise in the midst of a step; the loss of a worker shows when its data is due.
        signal.signal(signal.SIGCHLD, handler)
        return micro_batches

    def _replace_workers(self, reason: str) -> None:
        self._lost_workers += 1
        if self._lost_workers > LOST_WORKERS_LIMIT:
            raise UserError(
                f"workers that read data died {self._lost_workers} times; free memory, or lower --workers"
            ) from None
        print(f"A worker that reads data died; starting others ({reason})")
        self._micro_batches = self._start_workers()

    def _to_device(self, items: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image, mask, label = (tensor.to(self.device, non_blocking=True) for tensor in items)
        return from_uint8(image), from_uint8(mask, low=0.0), label

    def _from_host(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def _ignore_interrupt(_: int) -> None:
    """Leave Ctrl-C to the training process: its workers must live until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
