"""Training populations of clean and backdoored models."""
