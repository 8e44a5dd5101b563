"""The search: samplers propose, schedulers stop early, Ray Tune runs."""
