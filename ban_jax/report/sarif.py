"""Results as SARIF 2.1.0, which code hosts show beside a change.

What was judged clean has no result. What could not be read or judged has one: a file of
which nothing is known is never passed over in silence. The form is that of
https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
"""

import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ban_jax
from ban_jax.report import fields, text

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "weightsSha256/v1"
"""Equal for the same weights in any format, and under any path."""


class Rule(NamedTuple):
    """What a result is an instance of.

    Attributes:
      name: in one word.
      level: of its results: error, or warning.
      told: what it means, in one sentence.
      advice: what to do.
    """

    name: str
    level: str
    told: str
    advice: str


RULES = {
    "ban-jax/backdoored": Rule(
        "Backdoored",
        "error",
        "The score of a class lies above the threshold: the model has a backdoor.",
        "Do not use the model. `ban-jax repair` removes a backdoor and scans again.",
    ),
    "ban-jax/suspicious": Rule(
        "Suspicious",
        "warning",
        "A class is odder than in clean models, but below the threshold.",
        "Scan with more clean images, or with models that you trust (--calibrate).",
    ),
    "ban-jax/unreadable": Rule(
        "Unreadable",
        "warning",
        "The file could not be read, so nothing is known of it.",
        "Mend the file or name it to --exclude; it does not count as clean.",
    ),
    "ban-jax/not-judged": Rule(
        "NotJudged",
        "warning",
        "The model was read and could not be judged; it does not count as clean.",
        "See the reason; other clean images or another --mode may help.",
    ),
    "ban-jax/code-in-file": Rule(
        "CodeInFile",
        "error",
        "The file asks to call code when it is loaded by pickle.",
        "Do not load the file; ask its source for safetensors.",
    ),
}
"""Id -> rule. Ids do not change: code hosts remember what was dismissed by them."""


def document(
    records: Sequence[fields.Record], passed: Sequence[Any] = ()
) -> dict[str, Any]:
    """A SARIF log with one run.

    Args:
      records: judged lines; of a file that holds several classifiers each is told of.
      passed: what was met and holds no classifier, with `path` and `reason` each: these
        are notes of the run, not results.
    """
    ordered = sorted(fields.measured(records), key=fields.gravity)
    rules = [
        {
            "id": name,
            "name": rule.name,
            "shortDescription": {"text": rule.told},
            "help": {"text": rule.advice},
            "defaultConfiguration": {"level": rule.level},
        }
        for name, rule in RULES.items()
    ]
    run = {
        "tool": {
            "driver": {
                "name": "ban-jax",
                "semanticVersion": ban_jax.__version__,
                "rules": rules,
            }
        },
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {
                        "level": "note",
                        "message": {
                            "text": f"not judged: {text.printable(one.reason)}"
                        },
                        "locations": [_location(one.path)],
                    }
                    for one in passed
                ],
            }
        ],
        "results": [one for record in ordered for one in _results(record)],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def rule_of(record: fields.Record) -> str | None:
    """The rule that a verdict falls under; None for a clean model."""
    grade = fields.verdict(record)
    if grade != "inconclusive":
        return None if grade == "clean" else f"ban-jax/{grade}"
    # What was measured has a hash; what was not, could not be read.
    return "ban-jax/not-judged" if record.get("sha256") else "ban-jax/unreadable"


def _results(record: fields.Record) -> Iterator[dict[str, Any]]:
    calls = fields.calls(record)
    if calls:
        told = f"asks to call {', '.join(calls)} when loaded by pickle"
        yield _result(record, "ban-jax/code-in-file", told)
    rule = rule_of(record)
    if rule and not (calls and rule.endswith("/suspicious") and not _is_odd(record)):
        yield _result(record, rule, fields.remark(record))


def _is_odd(record: fields.Record) -> bool:
    """Whether a class stands out: what asks for calls is suspicious without that, too."""
    score, threshold, lower = (
        fields.number(record.get(name))
        for name in ("score", "threshold", "suspicious_above")
    )
    limit = threshold if lower is None else lower
    return score is not None and limit is not None and score > limit


def _result(record: fields.Record, rule: str, told: str) -> dict[str, Any]:
    part = record.get("part_of")
    path = str(record.get("path", ""))
    known = {
        name: record[name]
        for name in ("verdict", "score", "threshold", "target", "p_value", "mode")
        if record.get(name) is not None
    }
    found: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": list(RULES).index(rule),
        "kind": "fail",
        "level": RULES[rule].level,
        "message": {"text": f"{text.name(path)}: {text.printable(told)}"},
        "locations": [_location(str(part or path), path if part else None)],
        "properties": known,
    }
    weights = record.get("sha256")
    if weights and isinstance(weights, str):
        found["partialFingerprints"] = {FINGERPRINT: weights}
    return found


def _location(path: str, part: str | None = None) -> dict[str, Any]:
    """A place in a file; `part` names one of several classifiers in it."""
    found: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": uri(path)},
            "region": {"startLine": 1},
        }
    }
    if part is not None:
        found["logicalLocations"] = [{"fullyQualifiedName": text.name(part)}]
    return found


def uri(path: str) -> str:
    """A path as a URI: relative as it was given, or `file://`."""
    if "://" in path:
        return urllib.parse.quote(path, safe="/:@?=&%")
    if os.path.isabs(path):
        return pathlib.Path(path).as_uri()
    return urllib.parse.quote(os.fsencode(os.path.normpath(path)).replace(b"\\", b"/"))
