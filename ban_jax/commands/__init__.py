"""The commands of `ban-jax`, one file each: its flags and what it does."""
