"""Which shots are kept, by an expression over a manifest's columns, and for each that is not the part that it fails."""

import ast
import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TEXTS = ("path", "text", "cmotion", "phash", "duplicate_of")  # columns that hold text
# What fills a column in; the others are filled in for every row.
MEASURES = {
    "aes": "aes", "flow_dis": "flow_dis", "flow_raft": "flow_raft", "match": "match", "ocr": "ocr",
    "cmotion": "cmotion", "sharpness": "quality", "exposure": "quality", "colorfulness": "quality",
    "phash": "phash", "duplicate_of": "phash",
}  # fmt: skip
OF_MOTION = ("flow_dis", "flow_raft", "cmotion")
COLUMNS = (
    "path", "text", "num_frames", "height", "width", "aspect_ratio", "resolution", "fps", "shot", "start", "text_len",
    *MEASURES,
)  # fmt: skip
ALLOWED = (
    "allowed are columns, numbers, texts in quotes, comparisons (< <= > >= == != in, not in), and, or, not, + - * / "
    'and parentheses, such as num_frames / fps >= 2 and "beach" in text'
)
SLIPS = {"&&": "and", "||": "or", "<>": "!=", "=": "==", "!": "not"}  # of other languages
LONGEST = 4000  # characters of an expression
LARGEST = 1 << 53  # up to here whole numbers are exact
SHOWN = 60  # characters of a row's text in a reason

COMPARED = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in",
}  # fmt: skip
CALCULATED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "in": lambda part, whole: part in whole, "not in": lambda part, whole: part not in whole,
}  # fmt: skip
OPPOSITE = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}
TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}  # with the sides swapped

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Two values and how they are compared."""

    left: ast.expr
    operator: str
    right: ast.expr

    def __str__(self) -> str:
        return f"{_said(self.left)} {self.operator} {_said(self.right)}"

    def holds(self, row: Row) -> bool:
        """Whether it holds; never where a value is missing."""
        left, right = _value(self.left, row), _value(self.right, row)
        return left is not None and right is not None and HOLDS[self.operator](left, right)

    def failing(self) -> list["Comparison"]:
        """Itself."""
        return [self]


@dataclass(frozen=True)
class Joined:
    """Conditions of which all must hold, or any."""

    word: str  # "and", "or"
    parts: tuple["Comparison | Joined", ...]

    def __str__(self) -> str:
        parts = (f"({part})" if isinstance(part, Joined) else str(part) for part in self.parts)
        return f" {self.word} ".join(parts)

    def holds(self, row: Row) -> bool:
        """Whether all or any of them hold."""
        return (all if self.word == "and" else any)(part.holds(row) for part in self.parts)

    def failing(self) -> list[Comparison]:
        """All comparisons in it."""
        return [one for part in self.parts for one in part.failing()]


@dataclass(frozen=True)
class Filter:
    """A condition on rows, made by `parse`; None asks nothing."""

    condition: Comparison | Joined | None

    def why_not(self, row: Row) -> str:
        """The part that a row fails and the row's value there: "flow_dis is 0.31; the filter asks for >= 2".

        Empty where it passes. Raises ValueError where a value is of another kind than it is compared with.
        """
        try:
            return "" if self.condition is None or self.condition.holds(row) else _reason(self.condition, row)
        except TypeError as error:
            name = f"{row.get('path', 'a row')}#{row.get('shot', 0)}"
            values = ", ".join(
                f"{column} is {_shown(row.get(column))}" for column in _columns(self.condition) if column in row
            )
            raise ValueError(f"{name}: {values}; numbers and texts cannot be compared in {self.condition}") from error


def parse(expression: str, columns: Collection[str] = COLUMNS) -> Filter:
    """The filter that an expression says; an empty one keeps everything.

    It holds columns, numbers, texts, comparisons (also in chains, 2 <= flow_dis < 20), `in` (part of a text), and, or,
    not, + - * / and parentheses. A comparison with a missing value does not hold, nor does its opposite.

    Args:
        columns: the names that may stand in it; those of a manifest unless given.

    Raises ValueError that names the expression, the place in it, what is allowed and the nearest column.
    """
    source = " ".join(expression.encode(errors="replace").decode().splitlines())
    if not source.strip():
        return Filter(None)
    if len(source) > LONGEST:
        raise ValueError(f"the filter has {len(source)} characters; at most {LONGEST} are allowed")
    source = source.strip().replace("\0", " ")
    try:
        tree = ast.parse(source, mode="eval")
        return Filter(_Reader(source, tuple(columns)).condition(tree.body, False))
    except SyntaxError as error:
        raise _unreadable(source, error) from error
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"filter {_short(source)}: it is nested too deeply; write fewer nots") from error


def keep(rows: Iterable[Row], expression: str, columns: Collection[str] = COLUMNS) -> Iterator[dict[str, Any]]:
    """The rows one by one, each with `kept` and `reason` by the expression; what was left out before stays so.

    Raises ValueError as `parse`, at once, and as `Filter.why_not`.
    """
    asked = parse(expression, columns)
    return (_judged(row, asked) for row in rows)


def _judged(row, asked):
    if not row.get("kept", True):
        return dict(row)
    reason = asked.why_not(row)
    return {**row, "kept": not reason, "reason": reason}


class _Reader:
    """Turns Python's syntax tree into conditions, and refuses what is not allowed."""

    def __init__(self, source: str, columns: tuple[str, ...]):
        self.source, self.columns = source, columns

    def condition(self, node: ast.expr, opposite: bool) -> Comparison | Joined:
        """The condition, or its opposite: `not` turns comparisons, so that a missing value fails both."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self.condition(node.operand, not opposite)
        if isinstance(node, ast.BoolOp):
            word = "and" if isinstance(node.op, ast.And) != opposite else "or"
            return Joined(word, tuple(self.condition(part, opposite) for part in node.values))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = [self.comparison(*pair, opposite) for pair in zip(sides, node.ops, sides[1:])]
            return pairs[0] if len(pairs) == 1 else Joined("or" if opposite else "and", tuple(pairs))
        self.kind(node)  # refuses what is no value either
        raise self.refused(node, f"is a value and no condition: compare it, such as {ast.unparse(node)} >= 2")

    def comparison(self, left: ast.expr, compared: ast.cmpop, right: ast.expr, opposite: bool) -> Comparison:
        """A comparison of two numbers, or of two texts, the column on its left."""
        kinds = self.kind(left), self.kind(right)
        if type(compared) not in COMPARED:
            raise self.refused(right, "is compared by is")
        word = COMPARED[type(compared)]
        word = OPPOSITE[word] if opposite else word
        if set(kinds) == {"number", "text"}:
            raise self.refused(left, f"is a {kinds[0]} and {ast.unparse(right)} a {kinds[1]}, which cannot be compared")
        if word in ("in", "not in") and "number" in kinds:
            raise self.refused(left, f"{word} {ast.unparse(right)}: in looks for a text within a text")
        if word not in ("in", "not in", "==", "!=") and "text" in kinds:
            raise self.refused(left, f"is a text, and {word} orders numbers; texts are compared by ==, != and in")
        if word in TURNED and not _names(left) and _names(right):
            return Comparison(right, TURNED[word], left)
        return Comparison(left, word, right)

    def kind(self, node: ast.expr) -> str:
        """ "number", "text", or "any" of a column that is none of the manifest's own."""
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, str):
            if isinstance(node.value, int) and abs(node.value) > LARGEST:
                raise self.refused(node, f"is too large; at most {LARGEST} is allowed")
            return "text" if isinstance(node.value, str) else "number"
        if isinstance(node, ast.Name):
            if node.id not in self.columns:
                nearest = (difflib.get_close_matches(node.id, self.columns, 1, 0) or ["none"])[0]
                raise self.refused(node, f"is no column; the nearest is {nearest}; there are {', '.join(self.columns)}")
            return "text" if node.id in TEXTS else "number" if node.id in COLUMNS else "any"
        calculated = isinstance(node, ast.BinOp) and type(node.op) in CALCULATED
        parts = [node.left, node.right] if calculated else []  # type: ignore[attr-defined]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            parts = [node.operand]
        if not parts:
            raise self.refused(node, "is not allowed here")
        for part in parts:
            if self.kind(part) == "text":
                raise self.refused(part, "is a text, and only numbers can be calculated with")
        return "number"

    def refused(self, node: ast.expr, why: str) -> ValueError:
        """What to raise: why, with the place of the node."""
        place = len(self.source.encode()[: node.col_offset].decode(errors="ignore"))
        part = _short(ast.get_source_segment(self.source, node) or "")
        return ValueError(f"filter {_short(self.source)}: at character {place + 1}, {part} {why}; {ALLOWED}")


def _unreadable(source, error):
    place = (error.offset or len(source) + 1) - 1
    spoken = re.sub(r'"[^"]*"|\'[^\']*\'|[<>=!]=', " ", source)  # without texts and what is allowed
    slip = next((slip for slip in SLIPS if slip in spoken), None)
    hint = f"; write {SLIPS[slip]} for {slip}" if slip else ""
    where = f"at character {place + 1}, before {_short(source[place:])}" if source[place:] else "at its end"
    return ValueError(f"filter {_short(source)}: it cannot be read {where}{hint}; {ALLOWED}")


def _value(node: ast.expr, row: Row) -> Any:
    """The value of an expression for a row; None where one that it needs is missing."""
    if isinstance(node, ast.Constant):  # products of whole numbers would grow without an end
        return float(node.value) if isinstance(node.value, int) else node.value
    if isinstance(node, ast.Name):
        found = row.get(node.id)
        return None if isinstance(found, float) and math.isnan(found) else found
    if isinstance(node, ast.UnaryOp):
        number = _value(node.operand, row)
        return None if number is None else -number
    assert isinstance(node, ast.BinOp)
    left, right = _value(node.left, row), _value(node.right, row)
    if isinstance(left, str) or isinstance(right, str):
        raise TypeError("texts cannot be calculated with")
    if left is None or right is None or isinstance(node.op, ast.Div) and right == 0:
        return None
    return CALCULATED[type(node.op)](left, right)


def _reason(condition, row):
    """Why a row fails a condition that it does fail."""
    if isinstance(condition, Joined) and condition.word == "and":
        return _reason(next(part for part in condition.parts if not part.holds(row)), row)
    failing = condition.failing()
    missing = [column for column in _columns(condition) if _value(ast.Name(column), row) is None]
    if len(failing) == 1 and missing:
        return "; ".join(_missing(column, row) for column in dict.fromkeys(missing))
    if len(failing) == 1 and not _names(failing[0].right):
        return f"{_is(failing[0].left, row)}; the filter asks for {failing[0].operator} {_said(failing[0].right)}"
    if len(failing) == 1 and not _names(failing[0].left):
        word = "" if failing[0].operator == "in" else "no "
        return f"{_is(failing[0].right, row)}; the filter asks for {word}{_said(failing[0].left)} in it"
    sides = [side for one in failing for side in (one.left, one.right) if _names(side)]
    values = dict.fromkeys(_is(side, row) for side in sides)
    return f"{' and '.join(values)}; the filter asks for {condition}"


def _missing(column, row):
    if column in OF_MOTION and row.get("num_frames") == 1:
        return f"{column} is missing, since a picture has no motion; num_frames == 1 or … keeps pictures"
    if column in MEASURES:
        return f"{column} is missing; the measure {MEASURES[column]} fills it in"
    return f"{column} is missing" + ("; captions fill it in" if column in ("text", "text_len") else "")


def _is(node, row):
    value = _value(node, row)
    return f"{_said(node)} is {'missing' if value is None else _shown(value)}"


def _shown(value):
    if isinstance(value, str):
        return _short(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(text):
    return f'"{text[: SHOWN - 1]}…"' if len(text) > SHOWN else f'"{text}"'


def _said(node):
    """An expression as one writes it, texts in double quotes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and '"' not in node.value:
        return f'"{node.value}"'
    return ast.unparse(node)


def _names(node):
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _columns(condition):
    """The columns that a condition asks for, in its order."""
    return list(
        dict.fromkeys(name for one in condition.failing() for side in (one.left, one.right) for name in _names(side))
    )
