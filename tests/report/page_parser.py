"""Reads a page as a browser would."""

import html.parser

from ban_jax import report

_VOID = {"meta", "input", "br", "wbr", "img"}


class Page(html.parser.HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._stack = [], [], []
        self.feed(page)
        self.close()
        assert self._stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._stack.append(tag)

    def handle_endtag(self, tag):
        assert self._stack.pop() == tag

    def handle_data(self, data):
        if not self._stack or self._stack[-1] not in ("script", "style"):
            self.text.append(data)

    def having(self, tag, name=None):
        return [a for t, a in self.tags if t == tag and (name is None or name in a)]


def render(records, **options):
    return Page(report.render(records, **options))
