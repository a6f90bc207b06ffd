"""Ray, and nothing else: start or join it, run many things or one on it, train on it. No other package imports ray.

Importing this package does not import ray; that happens when a `Cluster` first needs it.
"""

from dcae15.cluster.resources import Pool, Resources
from dcae15.cluster.session import Cluster

__all__ = ["Cluster", "Pool", "Resources"]
