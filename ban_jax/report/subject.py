"""A candidate as its section of the page sees it: the record and what the page knows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ban_jax.report import charts, fields, text


class Subject(NamedTuple):
    """What the parts of a section share.

    Attributes:
      record: the line of the results file.
      anchor: the id that links to this section.
      label: the path as the page shows it, without the common folder.
      class_names: names of the classes, if known.
    """

    record: fields.Record
    anchor: str
    label: str
    class_names: Sequence[str] | None

    @property
    def verdict(self) -> str:
        """One of `fields.VERDICTS`."""
        return fields.verdict(self.record)

    @property
    def is_flagged(self) -> bool:
        """Whether it is called backdoored or suspicious."""
        return self.verdict in fields.FLAGGED

    @property
    def target(self) -> str:
        """The most unusual class by index and name, or nothing."""
        return fields.class_label(
            self.record.get("target"), self.class_names, self.record.get("num_classes")
        )

    def marked(self, num_classes: int) -> int | None:
        """The suspected class, marked in the pictures of flagged candidates alone."""
        target = self.record.get("target")
        if not self.is_flagged or not isinstance(target, int):
            return None
        return target if 0 <= target < num_classes else None

    def labels(self, num_classes: int) -> list[str]:
        """Names of the classes where they fit and are more than their numbers."""
        names = [str(name) for name in self.class_names or ()]
        if len(names) != num_classes:
            names = [str(k) for k in range(num_classes)]
        return [
            f"class {k}" if name == str(k) else text.name(name)
            for k, name in enumerate(names)
        ]

    def describe(
        self,
        title: str,
        values: Sequence[float | None],
        show: Callable[[float | None], str],
    ) -> str:
        """A picture of `[K]` values in one sentence, for readers who do not see it."""
        known = {k: value for k, value in enumerate(values) if value is not None}
        if not known:
            return title
        labels = self.labels(len(values))
        top = max(known, key=lambda k: known[k])
        told = f"{title}: largest is {labels[top]} with {show(known[top])}"
        mark = self.marked(len(values))
        if mark is not None and mark != top and mark in known:
            told += f"; suspected target {labels[mark]} has {show(known[mark])}"
        return told

    def selection(self, values: Sequence[float | None]) -> str:
        """A remark where a chart of `[K]` values leaves classes out."""
        shown = len(charts.choose(values, self.marked(len(values))))
        if shown == len(values):
            return ""
        return f" The largest {shown} of {len(values)} classes."
