"""Fuse stage: what is wrong with a formula or a fusion file, and where.

Every mistake of an author is one exception, `FusionError`, and its text is made to be read by
that author: file, line, column, and a caret under the very characters.

    default.yaml:3:17: unknown name 'clik'; did you mean 'click'?
        formula: like * clik ** 0.5
                        ^^^^
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_WINDOW_CHARS = 100  # of a line that is longer, only the part around the caret is shown


@dataclass(frozen=True)
class Source:
    """A piece of text, and where in which document it is written.

    Args:
        name: what the author knows the document by, such as `default.yaml` or `inline`.
        text: the text itself, as it is parsed.
        document: the whole document that the text stands in.
        offsets: [len(text) + 1] the place in `document` of every character of `text`, and of its
            end. YAML may fold and indent, so the text need not stand in one run.
    """

    name: str
    text: str
    document: str
    offsets: Sequence[int]

    @classmethod
    def whole(cls, name: str, text: str) -> Source:
        """The source whose text is the whole document."""
        return cls(name, text, text, range(len(text) + 1))


class FusionError(Exception):
    """A formula, a fusion file or an override of weights that cannot be used.

    Args:
        message: one sentence, without the place.
        source: the text that is wrong; None where the mistake is in no text, such as a file that
            cannot be read, and then `line` and `column` are None too.
        start: the first wrong character, an offset into `source.text`.
        end: past the last wrong character; `start` means one caret at `start`.

    Attributes:
        line: 1-based line in the document.
        column: 1-based column in the document, counted in characters.
    """

    def __init__(
        self, message: str, source: Source | None = None, start: int = 0, end: int = 0
    ) -> None:
        self.message = message
        self.line: int | None = None
        self.column: int | None = None
        if source is None:
            super().__init__(message)
            return
        document = source.document
        first = source.offsets[start]
        last = source.offsets[end - 1] if end > start else first
        line_start = document.rfind("\n", 0, first) + 1
        line_end = document.find("\n", first)
        line_text = document[line_start : line_end if line_end >= 0 else None]
        self.line = document.count("\n", 0, first) + 1
        self.column = first - line_start + 1
        caret = _caret(line_text, self.column - 1, last + 1 - first)
        super().__init__(f"{source.name}:{self.line}:{self.column}: {message}\n{caret}")


def _caret(line_text: str, column: int, width: int) -> str:
    """The line and the carets under it; what cannot be printed becomes one space or `?`."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in line_text)
    cut = max(0, column - _WINDOW_CHARS // 2) if len(shown) > _WINDOW_CHARS else 0
    shown = shown[cut : cut + _WINDOW_CHARS]
    column -= cut
    width = max(1, min(width, len(shown) - column))
    return f"    {shown}\n    {' ' * column}{'^' * width}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name most like `name`; empty if none is like it."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
