"""The winner as files, and the model that is loaded from them. Needs no Ray.

from orchestrator import bundle

model = bundle.load("results/NAME/best")
predictions = model.predict(["one.jpg", "two.png"])
"""

from orchestrator.bundle.bundle import Bundle, BundleError, load, read

__all__ = ["Bundle", "BundleError", "load", "read"]
