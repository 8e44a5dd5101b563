"""A Ray cluster whose own autoscaler starts and ends nodes of this host, as users' clusters do with machines.

It is what `ray.cluster_utils.AutoscalingCluster` makes (its configuration file is not in the wheel), but with a port
and processes of its own: Ray's `ray stop --force` ends every Ray on the host.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray_cluster as rays
from ray_cluster import Cluster, ray_cluster

HEAD = "f" * 51 + "00000"  # Ray's name of the node that its fake provider starts others beside
IDLE_MINUTES = 0.1  # after which a node is ended


@contextmanager
def autoscaling_cluster(folder: Path, cpus: int, most: int) -> Iterator[Cluster]:
    """Start a head without CPUs; beside it Ray starts up to `most` nodes of `cpus` CPUs, if they are asked for."""
    port = rays.free_port()
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(port, cpus, most)))
    environment = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": str(Path(__file__).parent),  # of the provider
        "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "RAY_CLOUD_INSTANCE_ID": HEAD,
    }
    with ray_cluster(0, f"--autoscaling-config={config}", environment=environment, port=port) as cluster:
        yield cluster


def _config(port: int, cpus: int, most: int) -> dict[str, object]:
    worker = {"CPU": cpus, "object_store_memory": 100_000_000}
    return {
        "cluster_name": "fake",
        "max_workers": most,
        "upscaling_speed": 100,
        "idle_timeout_minutes": IDLE_MINUTES,
        "docker": {},
        "auth": {},
        "provider": {
            "type": "external",
            "module": "spot_provider.SpotProvider",
            "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        **{f"{who}setup_commands": [] for who in ("", "head_", "worker_")},
        **{f"{who}_start_ray_commands": [] for who in ("head", "worker")},
    }
