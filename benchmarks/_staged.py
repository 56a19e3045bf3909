"""The evidence that a scan would have of a model of which all was measured."""

from ban_jax import records, verdict
from ban_jax.detectors import directed, witnesses
from benchmarks import _verdict_models


def staged(model: _verdict_models.Model, judge: verdict.Judge) -> records.Evidence:
    """The evidence a scan would have: the closer look only where it is asked for."""
    line = model.line
    if not set(directed.WORDS) & set(line["vectors"]):
        return line
    first = without(line, directed.VECTORS)
    asked = judge.asks(first)
    if asked is None:
        return first
    unasked = tuple(n for n in directed.VECTORS if n not in asked.vectors)
    return at_classes(without(line, unasked), asked)


def at_classes(line: records.Evidence, asked: witnesses.Question) -> records.Evidence:
    """Evidence as it is where these vectors were measured at the classes in question."""
    count = int(line["num_classes"] or 0)
    left_out = sorted(set(range(count)) - set(asked.classes))
    work = directed.work(
        directed.Settings(), len(left_out), line["num_probe"], asked.vectors
    )
    vectors, errors = dict(line["vectors"]), dict(line["errors"])
    for name in asked.vectors:
        vectors[name], errors[name] = list(vectors[name]), list(errors[name])
        for index in left_out:
            vectors[name][index], errors[name][index] = None, 0.0
    less = line["forward_equivalents"] - work
    return {  # type: ignore[typeddict-item]
        **line,
        "vectors": vectors,
        "errors": errors,
        "forward_equivalents": less,
    }


def without(line: records.Evidence, vectors: tuple[str, ...]) -> records.Evidence:
    """Evidence as it is where these vectors of all classes were not measured."""
    work = directed.work(
        directed.Settings(), int(line["num_classes"] or 0), line["num_probe"], vectors
    )
    kept = {
        part: {name: v for name, v in line[part].items() if name not in vectors}
        for part in ("vectors", "errors")
    }
    return {**line, **kept, "forward_equivalents": line["forward_equivalents"] - work}  # type: ignore[typeddict-item]
