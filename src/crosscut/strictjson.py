"""JSON as a stranger may send it: read in full or refused, in bounded memory and without deep recursion.

The usual parser lets the last of two equal names win, takes NaN and Infinity for numbers and recurses as deep as the
brackets nest; here each of these is refused with a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from crosscut.refusals import quoted, refusal


def read_json(body: str | bytes | Mapping[str, Any], *, most_bytes: int, most_levels: int) -> object:
    """The value `body` holds, read as RFC 8259 has it and no name twice in an object; raises RequestError.

    A mapping is taken through JSON as well, so that it holds what a document could hold and nothing else.
    """
    text = "" if len(body) > most_bytes else _text_of(body)
    if len(body) > most_bytes or len(text.encode(errors="surrogatepass")) > most_bytes:
        raise refusal(f"The request is larger than {most_bytes:,} bytes; send fewer links or texts.")
    if not text.strip():
        raise refusal('The request is empty; send an object like {"task_name": ...}.')
    if _depth(text) > most_levels:
        raise refusal(f"The request is nested deeper than {most_levels} levels; send plain lists of links.")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        found = (
            f"{error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')} at line {error.lineno}, column {error.colno}"
        )
        raise refusal(f"The request is not valid JSON: {found}; check quotes and commas there.") from None
    except ValueError:  # int() refuses more than a few thousand digits
        raise refusal("The request holds a number with too many digits; shorten it.") from None


def _text_of(body: str | bytes | Mapping[str, Any]) -> str:
    if isinstance(body, Mapping):
        try:
            return json.dumps(dict(body), ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            raise refusal("The request holds something JSON cannot express; use texts, numbers and lists.") from None
    if isinstance(body, str):
        return body.removeprefix("\ufeff")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise refusal("The request is not UTF-8 text; send JSON encoded as UTF-8.") from None


def _depth(text: str) -> int:
    """How deep brackets nest, counted before parsing because the parser recurses."""
    deepest = depth = 0
    for token in re.finditer(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise refusal(f"The request holds {quoted(name)} twice in one object; rename or remove one.")
        result[name] = value
    return result


def _no_constant(word: str) -> NoReturn:
    raise refusal(f"The request holds {word}, which is not a JSON number; send a plain number.")
