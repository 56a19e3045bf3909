"""Detectors side by side on models whose truth is known: runs, figures, equal time."""
