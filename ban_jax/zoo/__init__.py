"""Folders of models with ground truth: what is listed, how well attacks succeed."""
