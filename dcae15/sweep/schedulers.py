"""Which trials run, how many at once, and on what: shares of the cluster, ASHA and TPE as the records of a sweep have them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dcae15.cluster import Resources
from dcae15.cluster.tune import Halving, Search
from dcae15.config import Config, field_type
from dcae15.errors import ConfigError
from dcae15.sweep.file import Range, Sweep
from dcae15.sweep.records import latest
from dcae15.sweep.trials import Trial


def halving(sweep: Sweep, records: Sequence[Trial]) -> Halving | None:
    """Return the scheduler of a sweep with what its ended trials showed at milestones; None where nothing is stopped."""
    if sweep.scheduler == "none":
        return None
    ended = {record.id: [row.get(sweep.metric, math.nan) for row in record.curve] for record in records if record.ended}
    return Halving(sweep.reduction, ended)


def search(sweep: Sweep, records: Sequence[Trial]) -> Search:
    """Return the search of a sweep, which knows the trials that ended, and begins with those that did not."""
    ended = [record for record in records if record.ended]
    values = [(record.values, latest(record, sweep.metric)) for record in ended]
    return Search(
        space={path: _distribution(path, domain) for path, domain in sweep.space.items()},
        count=sweep.trials - len(ended),
        seed=sweep.seeds[0] + len(records),  # else it would draw the first ones again
        first=[record.values for record in records if not record.ended],
        ended=[(point, value) for point, value in values if not math.isnan(value)],
    )


def _distribution(path: str, domain: Range | Sequence[object]) -> BaseDistribution:
    if not isinstance(domain, Range):
        return CategoricalDistribution(list(domain))  # pyright: ignore[reportArgumentType]
    if field_type(path) == "int":
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step) or 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step or None)


def share_out(sweep: Sweep, config: Config, cluster: Resources) -> tuple[int, Resources]:
    """Return how many trials run at once, and what each may use.

    The process of a trial itself takes neither CPUs nor GPUs: its stages do, as tasks, actors and workers of their own. So
    trials cannot wait for each other's resources as long as no more run at once than fit.

    Raises:
        ConfigError: a trial needs more than there is.
    """
    gpu = cluster.uses_gpu(config.scaling)
    if not gpu and sweep.gpus_per_trial > 1 and config.scaling.use_gpu == "auto":
        raise ConfigError(
            f"gpus_per_trial is {sweep.gpus_per_trial}, and the cluster has no GPUs; set scaling.use_gpu=no to run the trials on "
            "CPUs, or start the sweep on a cluster with GPUs (scaling.use_gpu=yes where they are started on demand)"
        )
    field, unit = ("gpus_per_trial", "GPUs") if gpu else ("cpus_per_trial", "CPUs")
    needs, has = getattr(sweep, field), cluster.gpus if gpu else cluster.cpus
    grows = not cluster.local and sweep.concurrent > 0  # nodes are started for what waits
    if needs > has and not grows:
        mend = "lower it" if has else "start the sweep on a cluster with GPUs, or set scaling.use_gpu=no"
        raise ConfigError(
            f"{field} is {needs}, the cluster has {has} {unit}; {mend}"
            + ("" if cluster.local else ", or say with 'concurrent' how many trials the cluster may grow to")
        )
    if sweep.concurrent * needs > has and not grows:
        raise ConfigError(
            f"concurrent is {sweep.concurrent}, and {field} {needs}: together {sweep.concurrent * needs} {unit}, "
            f"the cluster has {has}; lower one of them"
        )
    concurrent, workers = sweep.concurrent or has // needs, config.scaling.num_workers
    if workers * (1 if gpu else config.scaling.cpus_per_worker or 1) > needs:
        raise ConfigError(
            f"scaling.num_workers={workers} needs more than {field} {needs}, the share of a trial; raise it, or use fewer workers"
        )
    # Workers have to fit beside their GPUs: nodes without any do not count.
    share = (
        replace(cluster, cpus=needs * max(1, cluster.cpus_per_gpu), gpus=needs) if gpu else replace(cluster, cpus=needs)
    )
    share.check_workers(config.scaling, f"a trial of {field}={needs}")
    return concurrent, share
