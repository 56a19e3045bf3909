"""What is found in a file besides its weights, and what that does to a verdict."""

from collections.abc import Sequence

from ban_jax.records import Evidence, Verdict

_MOST_NAMED = 5


def with_calls(record: Evidence, verdict: Verdict) -> Verdict:
    """The verdict of a file that asks for calls: never plain clean.

    What was not judged stays so, and a backdoor is the graver finding; both say it too.
    Of a file that holds no classifier there is nothing to judge but its calls.
    """
    told = sentence(record["calls"])
    if not told:
        return verdict
    grade = verdict["verdict"]
    if grade == "clean" or record["other"]:
        grade = "suspicious"
    return {
        **verdict,
        "verdict": grade,
        "reason": f"{told}; {verdict['reason']}" if verdict["reason"] else told,
    }


def sentence(calls: Sequence[str]) -> str:
    """`asks to call os.system when loaded by pickle`; empty without calls."""
    if not calls:
        return ""
    named = ", ".join(calls[:_MOST_NAMED])
    left = len(calls) - _MOST_NAMED
    more = f" and {left} more" if left > 0 else ""
    return f"asks to call {named}{more} when loaded by pickle"
