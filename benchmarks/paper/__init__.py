"""The paper's tables, one file each: `python -m benchmarks.paper.NAME`."""
