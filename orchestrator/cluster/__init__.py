"""Machines: what they have, a local Ray or a cluster to attach to, what their processes share."""
