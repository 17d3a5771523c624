"""ComfyUI's prompt weights, `(text:1.2)`, without the part that would turn plain parentheses into weights."""

import re

_SCAN = re.compile(r"\\[()]|[()]|[^()\\]+|\\")
_NUMBER = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")


def split_weights(text: str) -> list[tuple[str, float]]:
    r"""Pieces of a prompt and their weights: [(text, weight), ...], neighbours of one weight joined.

    Only a group that ends in a number has a weight: `a (red:1.3) cat` is `a `, `red` at 1.3 and ` cat`. Parentheses
    without one stay as they were typed, as do unmatched ones; `\(` and `\)` are always plain. Of nested weights the
    inner one counts, as in ComfyUI.
    """
    groups = [[]]  # of [text, weight or None], the innermost open group last
    for part in _SCAN.findall(text):
        if part == "(":
            groups.append([])
        elif part == ")" and len(groups) > 1:
            groups[-2].extend(_closed(groups.pop()))
        else:
            groups[-1].append([part[1:], None, True] if len(part) == 2 and part[0] == "\\" else [part, None, False])
    while len(groups) > 1:
        rest = groups.pop()
        groups[-1].extend([["(", None, True], *rest])

    pieces = []
    for part, weight, _ in groups[0]:
        weight = 1.0 if weight is None else weight
        if pieces and pieces[-1][1] == weight:
            pieces[-1] = (pieces[-1][0] + part, weight)
        elif part:
            pieces.append((part, weight))
    return pieces


def _closed(group):
    """The parts of a group whose closing parenthesis was found, weighted if it ends in a number."""
    number = _NUMBER.search(group[-1][0]) if group and not group[-1][2] and group[-1][1] is None else None
    said = [*group[:-1], [group[-1][0][: number.start()], None, False]] if number else []
    if not any(part for part, _, _ in said):
        return [["(", None, True], *group, [")", None, True]]
    return [[part, float(number[1]) if weight is None else weight, True] for part, weight, _ in said]
