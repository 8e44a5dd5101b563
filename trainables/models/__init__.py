"""Models under one `build`."""
