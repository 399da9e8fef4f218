"""The processes that hold one model together, and how they exchange tensors.

`torchrun` starts them and sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. They exchange tensors
through gloo on a CPU and through NCCL on GPUs. Every process must call the same methods in the same
order, and waits there for the others.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from oss_lab.errors import LabError, shorten

START = timedelta(seconds=60)  # how long to wait for all processes to start
ANSWER = timedelta(minutes=10)  # how long to wait for the slowest process at any later point
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """`count` processes, of which this one has number `rank`, from 0."""

    rank: int
    count: int

    def all_reduce(self, x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """The sum of every process's x, added in float32, in the dtype of x."""
        total = self._without_gradient(x).to(torch.float32, copy=True).contiguous()
        with self._explain_failure():
            dist.all_reduce(total)
        return total.to(x.dtype)

    def all_gather(self, x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
        """The x of all processes, which have the same shape, in the order of their numbers."""
        own = self._without_gradient(x).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.count)]
        with self._explain_failure():
            dist.all_gather(parts, own)
        return torch.cat(parts, dim)

    def check_same(self, what: str, contents: bytes) -> None:
        """Raise LabError in every process unless all of them gave the same contents."""
        digest = blake2b(contents, digest_size=8).digest()
        digests = self.all_gather(torch.frombuffer(bytearray(digest), dtype=torch.int64), 0)
        other = (digests != digests[0]).nonzero()
        if len(other):
            raise LabError(
                f"process {int(other[0])} has other {what} than process 0; run the same calls in"
                " every process, with a seed where tokens are sampled"
            )

    def _without_gradient(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise LabError(
                f"a model split over {self.count} processes has no gradients; load it in one"
            )
        return x

    @contextmanager
    def _explain_failure(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise LabError(
                f"process {self.rank} of {self.count} could not exchange values with the others"
                f" (torch: {first_sentence(error)}); look for the first error of another process"
            ) from error


def start_processes(device: torch.device) -> tuple[Processes, torch.device]:
    """Connect the processes that torchrun started; also return the device of this one.

    A GPU without a number becomes the one with this process's number on its machine.

    Raises:
        LabError: this is not such a process, or the others do not answer within START.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if device.index >= (count := torch.cuda.device_count()):
            raise LabError(
                f"process {device.index} needs GPU {device.index}, and this machine has {count};"
                f" give torchrun --nproc-per-node {count}, or load with device='cpu'"
            )
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        if missing := [name for name in VARIABLES if not os.environ.get(name)]:
            raise LabError(
                f"a split model needs processes, and {missing[0]} is not set: start the command"
                " with torchrun, as in `torchrun --nproc-per-node 2 -m oss_lab generate QUESTION"
                " --parallel`"
            )
        # Numbers and digests are on the CPU, even if the weights are on GPUs.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            store, rank, count = next(rendezvous("env://", timeout=START))
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=count, timeout=ANSWER
            )
        except (RuntimeError, ValueError) as error:
            asked = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES)
            raise LabError(
                f"the processes did not find each other ({asked}; torch: {first_sentence(error)});"
                " start as many as WORLD_SIZE, and check that each can reach MASTER_ADDR"
            ) from error
        atexit.register(dist.destroy_process_group)  # else gloo may abort the process at its end
    return Processes(dist.get_rank(), dist.get_world_size()), device


def first_sentence(error: BaseException) -> str:
    """The beginning of a message of torch, without the C++ stack that may follow."""
    return shorten(str(error).partition("\n")[0].partition(". ")[0], 160)
