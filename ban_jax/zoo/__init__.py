"""Folders of models with ground truth: what is listed, how well attacks succeed."""

import os

BUNDLED = os.path.join(os.path.dirname(__file__), "bundled")
"""Checkpoints of known make, trained on scikit-learn's handwritten digits."""
