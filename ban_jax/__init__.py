"""Finds backdoors in neural network checkpoints with adversarial neuron noise."""

__version__ = "0.2.0"
