"""Which lowering of a convolution is best where: measured tables, and the choice.

`lowerings.json` ships with the package; `ban-jax bench --tune` measures the device at hand
and writes a copy of the user's own (`user_table`), which goes before it. A table lists
machines, and for each the seconds of every lowering per layer shape, per half of the work
(`convolution.What`), per precision, for one model alone and for `STACKED` models side by
side. Which of the last two counts is decided by how a backend computes populations
(`population`: a CPU one model at a time, others stacked), never by the size of a chunk: no
result depends on that.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax

from ban_jax.convolution import LOWERINGS, WORK, Choice, Layer, Name, What
from ban_jax.storage import atomic, json_file
from ban_jax.types import Precision

PACKAGED = os.path.join(os.path.dirname(__file__), "lowerings.json")
MARGIN = 1.03
"""How much slower a simpler lowering may be: so that noise does not change the choice."""
STACKED = 8
"""Models side by side in a table's stacked rows."""


class TableError(ValueError):
    """A table that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer shape, measured.

    Attributes:
      layer: its shape.
      what: which half of its work.
      models: 1, or as many as were stacked.
      seconds: of the whole machine per model and call, by lowering, as
        `commands.tuning` times it.
      precision: of the products.
    """

    layer: Layer
    what: What
    models: int
    seconds: Mapping[Name, float]
    precision: Precision = "float32"

    @property
    def key(self) -> tuple[Any, ...]:
        """All that tells it from other rows of its machine."""
        return self.layer, self.what, self.models, self.precision

    @property
    def best(self) -> Name:
        """The first of `LOWERINGS` that comes within `MARGIN` of the fastest."""
        enough = MARGIN * min(self.seconds.values())
        return next(n for n in LOWERINGS if self.seconds.get(n, enough + 1) <= enough)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What is known of one kind of device.

    Attributes:
      backend: as JAX names it: cpu, gpu, tpu.
      device: JAX's `device_kind`; empty for what holds of the backend at large.
      fallback: lowering of layers for which no row was measured.
      note: how far to trust this.
      runs: each measurement's date, versions, load and settings, the last one last.
      rows: the measurements.
    """

    backend: str
    device: str
    fallback: Name
    note: str = ""
    runs: tuple[Mapping[str, Any], ...] = ()
    rows: tuple[Row, ...] = ()

    def choice(self, table: str, precision: Precision = "float32") -> Choice:
        """The best lowering of every layer measured at a precision, else at float32."""
        models = 1 if self.backend == "cpu" else STACKED
        if all(row.precision != precision for row in self.rows):
            precision = "float32"

        def best(what: What) -> tuple[tuple[Layer, Name], ...]:
            return tuple(
                (row.layer, row.best)
                for row in self.rows
                if row.key == (row.layer, what, models, precision)
            )

        return Choice(self.fallback, best("search"), best("kernel"), table)


UNKNOWN = Machine("", "", "shift", "no table knows this backend")
"""Plain matrix products: what every backend is made for."""


def default(precision: Precision = "float32") -> Choice:
    """The choice for the device that computes by default."""
    device = jax.devices()[0]
    return choose(device.platform, device.device_kind, precision)


def choose(backend: str, device: str, precision: Precision = "float32") -> Choice:
    """The choice for a device: from the user's table where it lists that very device.

    Else from the packaged table, there too the very device first, else what holds of its
    backend, else `UNKNOWN`.

    Raises:
      TableError: when a table cannot be read.
    """
    for machine in read(user_table()):
        if (machine.backend, machine.device) == (backend, device):
            return machine.choice("user", precision)
    alike = [machine for machine in read(PACKAGED) if machine.backend == backend]
    alike.sort(key=lambda machine: (machine.device != device, machine.device != ""))
    return alike[0].choice("packaged", precision) if alike else UNKNOWN.choice("none")


def user_table() -> str:
    """Path of the user's own table: `ban_jax/lowerings.json` in the configuration folder.

    That is `XDG_CONFIG_HOME`, or `.config` in the home folder.
    """
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(folder, "ban_jax", "lowerings.json")


def read(path: str) -> list[Machine]:
    """The machines of a table; none where there is no file.

    Raises:
      TableError: for a file that is no table; the message says what to do.
    """
    try:
        return [_machine(entry) for entry in json_file.load(path)["machines"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(
            f"{path}: not a readable table of convolution lowerings ({error!r}); delete "
            "it, or measure anew with `ban-jax bench --tune`"
        ) from error


def update(path: str, new: Machine) -> None:
    """Adds measurements to a table, in place of earlier ones of the same device and layer.

    Raises:
      TableError: when the file there is no table: it is not overwritten.
    """
    machines = {(entry.backend, entry.device): entry for entry in read(path)}
    known = machines.setdefault((new.backend, new.device), new)
    if known is not new:
        rows = {row.key: row for row in (*known.rows, *new.rows)}
        machines[new.backend, new.device] = dataclasses.replace(
            known, runs=(*known.runs, *new.runs), rows=tuple(rows.values())
        )
    atomic.write(path, _encode(list(machines.values())).encode())


def _machine(entry: Mapping[str, Any]) -> Machine:
    rows = tuple(
        Row(
            Layer(**row["layer"]),
            _one_of(WORK, row["what"]),
            int(row["models"]),
            {_one_of(LOWERINGS, name): float(s) for name, s in row["seconds"].items()},
            _one_of(get_args(Precision), row["precision"]),
        )
        for row in entry["rows"]
    )
    fallback = _one_of(LOWERINGS, entry["fallback"])
    runs = tuple(entry["runs"])
    return Machine(**{**entry, "fallback": fallback, "runs": runs, "rows": rows})


def _one_of(known: Sequence[Any], name: str) -> Any:
    if name not in known:
        raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return name


def _encode(machines: Sequence[Machine]) -> str:
    """JSON with a line per row, so that a new measurement shows as a readable change."""
    blocks = []
    for machine in machines:
        head = dataclasses.asdict(dataclasses.replace(machine, rows=()))
        del head["rows"]
        rows = [
            {
                "layer": row.layer._asdict(),
                "what": row.what,
                "models": row.models,
                "precision": row.precision,
                "seconds": dict(row.seconds),
            }
            for row in machine.rows
        ]
        lines = ",\n".join(f"   {json.dumps(row)}" for row in rows)
        opening = json.dumps(head, indent=1).replace("\n", "\n ")[:-2].rstrip()
        blocks.append(
            f' {opening},\n  "rows": [{chr(10) if lines else ""}{lines}]\n }}'
        )
    return '{"machines": [\n' + ",\n".join(blocks) + "\n]}\n"
