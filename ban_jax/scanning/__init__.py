"""From checkpoint files to evidence: the loop, its chunks, shards of a scan."""
