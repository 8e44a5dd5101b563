"""Ray's fake provider of nodes, but one whose nodes can be lost: it lists none whose raylet has died."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class SpotProvider(FakeMultiNodeProvider):  # type: ignore[misc, unused-ignore]
    """Ray's autoscaler imports it by its name in the cluster's configuration."""

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[Any]:
        """Return the ids of the nodes that live and have these tags."""
        with self.lock:
            for node_id, node in tuple(self._nodes.items()):
                if "node" in node and any(name == "raylet" for name, _ in node["node"].dead_processes()):
                    del self._nodes[node_id]
        return list(super().non_terminated_nodes(tag_filters))
