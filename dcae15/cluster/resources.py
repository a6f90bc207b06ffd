"""What a cluster offers, and how it is shared out among the processes of a stage. Pure arithmetic: no Ray."""

from __future__ import annotations

from dataclasses import dataclass

from dcae15.config import ScalingConfig
from dcae15.errors import ConfigError


@dataclass(frozen=True)
class Pool:
    """Actors that work side by side."""

    least: int  # actors to start with; the pool doubles while all of them run and there is more to do
    most: int  # actors to grow to; 0 means as many as there are items
    cpus: float = 1.0  # CPUs of each
    gpus: float = 0.0  # GPUs of each

    @property
    def threads(self) -> int:
        """Computing threads of each actor."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Resources:
    """What a cluster, or a trial's share of one, offers now."""

    cpus: int  # CPUs of all nodes
    gpus: int  # GPUs of all nodes
    local: bool  # whether this machine is all there is
    cpus_per_gpu: int = 0  # CPUs beside each GPU, on the node with GPUs that has fewest; 0 without GPUs
    grows: bool = False  # whether nodes may join later

    def uses_gpu(self, scaling: ScalingConfig) -> bool:
        """Tell whether stages compute on GPUs."""
        return scaling.use_gpu == "yes" or (scaling.use_gpu == "auto" and self.gpus > 0)

    def trains_in_process(self, scaling: ScalingConfig) -> bool:
        """Tell whether training runs in the driver itself: on a machine without GPUs where nobody asked for workers.

        There a worker process would only add Ray Train's own processes, which take a seventh of a core while they wait.
        """
        return self.local and not scaling.num_workers and not scaling.cpus_per_worker and not self.uses_gpu(scaling)

    def training_workers(self, scaling: ScalingConfig) -> tuple[int, int]:
        """Return (workers, CPUs of each)."""
        workers = scaling.num_workers or (max(1, self.gpus) if self.uses_gpu(scaling) else 1)
        return workers, scaling.cpus_per_worker or max(1, self.cpus // workers)

    def readers(self) -> Pool:
        """Return a pool with an actor for each CPU."""
        cpus = max(1, self.cpus)
        return Pool(least=cpus, most=0 if self.grows else cpus)

    def decoders(self) -> Pool:
        """Return a pool of half as many actors again as there are CPUs: some always wait for storage."""
        cpus = max(1, self.cpus)
        actors = cpus + (cpus + 1) // 2
        if self.grows:
            return Pool(least=actors, most=0, cpus=0.66)
        return Pool(least=actors, most=actors, cpus=int(100 * cpus / actors) / 100)  # rounded down, or they do not fit

    def encoders(self, scaling: ScalingConfig) -> Pool:
        """Return a pool for stages that run a network over shards.

        On this machine alone, without GPUs, it is one worker with all CPUs, which needs no other process, unless more are asked
        for. Else an actor has one thread: actors side by side lose nothing at the barriers of a thread pool.
        """
        least, most = scaling.encoders
        if self.uses_gpu(scaling):
            return Pool(least, most or (0 if self.grows else max(least, self.gpus)), gpus=1.0)
        if most:
            return Pool(least, most, cpus=max(1.0, self.cpus // most))
        if self.local and least == 1:
            return Pool(1, 1, cpus=max(1.0, self.cpus))
        most = max(1, least, self.cpus)
        # A local cluster has no nodes to wait for.
        return Pool(most if self.local else least, 0 if self.grows else most, cpus=max(1.0, self.cpus // most))

    def check_workers(self, scaling: ScalingConfig, who: str = "this machine") -> None:
        """Raise ConfigError when a local cluster, or a share of it, can never run the training workers asked for."""
        workers, cpus = self.training_workers(scaling)
        if not self.local:
            return
        if workers * cpus > self.cpus:
            raise ConfigError(
                f"scaling.num_workers={workers} with scaling.cpus_per_worker={cpus} needs {workers * cpus} CPUs, {who} "
                f"has {self.cpus}; lower one of them"
            )
        if scaling.use_gpu == "yes" and workers > self.gpus:
            raise ConfigError(
                f"scaling.use_gpu=yes with {workers} workers needs {workers} GPUs, {who} has {self.gpus}; "
                "set scaling.use_gpu=auto or lower scaling.num_workers"
            )
