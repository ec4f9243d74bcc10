"""What is raised for an expression that does not hold."""

from __future__ import annotations

from otus_sdk.errors import ConfigurationInvalid
from otus_sdk.expression.tree import Span

__all__ = ["ExpressionError"]


class ExpressionError(ConfigurationInvalid):
    """An expression that can't be read, names what does not exist, or mixes types.

    Attributes:
        reason: What is wrong, without the place.
        expression: The text.
        column: Where, in characters from 1.
        span: The same as offsets.
    """

    def __init__(self, reason: str, expression: str, span: Span) -> None:
        self.reason = reason
        self.expression = expression
        self.span = span
        self.column = span.start + 1
        super().__init__(
            f"expression, column {self.column}: {reason}",
            details={
                "expression": expression,
                "column": self.column,
                "length": max(span.end - span.start, 1),
                "reason": reason,
            },
        )

    def pointed(self) -> str:
        """The message, the expression's line and a line with a caret under the place."""
        start = self.expression.rfind("\n", 0, self.span.start) + 1
        end = self.expression.find("\n", self.span.start)
        line = self.expression[start : None if end < 0 else end]
        offset = self.span.start - start
        # Tabs stay tabs, so that the caret stands under what it points at.
        pad = "".join("\t" if char == "\t" else " " for char in line[:offset])
        width = max(min(self.span.end - self.span.start, len(line) - offset), 1)
        return f"{self.message}\n  {line}\n  {pad}^{'~' * (width - 1)}"
