"""Bounds on what reading one file may cost.

Reading a file of `n` bytes holds at most, in this order:
  - the file itself: read into memory up to `READ_WHOLE`; of a larger one, the parts
    asked for: its table of contents, and one tensor at a time (msgpack and npz: all);
  - Python objects described by the file: `OBJECT_SLACK + 2 n`;
  - names of tensors gathered while looking for the classifier: `OBJECT_SLACK`;
  - decompressed bytes (`.npz` and Orbax alone): `4 n + COPY_SLACK`;
  - the selected tensors as float32: `2 n + COPY_SLACK`, or for compressed containers
    `4 n + COPY_SLACK`; views of one storage, expanded ones too, count in full.
So at most `5 n + 66 MiB`, and `11 n + 66 MiB` for compressed containers. The text files
beside it (`zoo.json`, `config.json`) are held to `MAX_JSON` bytes and, by what their
brackets and commas announce, to `JSON_OBJECTS` of objects; of those files four are
remembered by the process.

Work is bounded too: every step consumes a byte of the file or is charged here, and a
pickle runs at most `MAX_OPERATIONS` opcodes. From its opening to its weights a file gets
`SECONDS`, and `SECONDS_PER_MIB` for each MiB of it; `watchdog` ends what takes longer.
"""

from ban_jax.checkpoints.errors import CheckpointError

MIB = 2**20
READ_WHOLE = 64 * MIB
OBJECT_SLACK = 32 * MIB
COPY_SLACK = MIB
MAX_PICKLE = 64 * MIB
"""Bytes at the start of a legacy file that its pickles must lie in."""
MAX_FILE = 16 * 2**30
MAX_OPERATIONS = 10_000_000
MAX_ENTRIES = 100_000
"""Entries of a zip archive, and tensors of a file."""
MAX_RANK = 16
"""Dimensions of a tensor; weights have at most four."""
MAX_JSON = 4 * MIB
JSON_OBJECTS = 32 * MIB
SECONDS = 120.0
"""To find and open a file, and to trace the architecture it turns out to be, on a machine
that may be busy with other things."""
SECONDS_PER_MIB = 2.0


class Budget:
    """A number of bytes that can be spent once.

    Args:
      limit: bytes.
      purpose: what they are spent on, for the message.
    """

    __slots__ = ("left", "limit", "purpose")

    def __init__(self, limit: int, purpose: str):
        self.limit = self.left = limit
        self.purpose = purpose

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise CheckpointError(
                f"{self.purpose} would take more than {self.limit:,} bytes, the most a "
                "file of this size may ask for"
            )


def objects(size: int) -> Budget:
    """For Python objects described by a file of `size` bytes."""
    return Budget(OBJECT_SLACK + 2 * size, "the objects described by the file")


def names() -> Budget:
    """For the names of tensors in the groups that may be a classifier."""
    return Budget(OBJECT_SLACK, "the names of tensors inside objects")


def copies(size: int) -> Budget:
    """For the float32 copies of the tensors of a file of `size` bytes."""
    return Budget(COPY_SLACK + 2 * size, "the tensors (views counted in full)")


def inflated(size: int) -> Budget:
    """For the decompressed content of a file of `size` bytes."""
    return Budget(COPY_SLACK + 4 * size, "the decompressed content")
