"""Why a request is refused: one sentence that names the place, such as `video_blocks.hooks[2]`, and what to change.

Checks raise a `problem`; `first_refusal` turns it, or what pydantic itself found, into the error a caller sees.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from crosscut.errors import RequestError
from crosscut.naming import printable

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
KnownFields = Callable[[Location], Sequence[str]]
"""The names of the fields that are known where an unknown one was found."""

EXAMPLE_LINK = "https://example.com/clip.mp4"
EXAMPLE_MUSIC = "https://example.com/music.mp3"

_WANTED = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": 'an object like {"text": "Hello"}',
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
}
_WANTED_IN: Mapping[tuple[int | str, str], str] = {  # by top-level field, where an example says more
    ("video_blocks", "string_type"): f'a link like "{EXAMPLE_LINK}"',
    ("audio_blocks", "string_type"): f'a link like "{EXAMPLE_MUSIC}"',
    ("video_blocks", "dict_type"): f'an object like {{"hook": ["{EXAMPLE_LINK}"]}}',
    ("audio_blocks", "dict_type"): f'an object like {{"music": ["{EXAMPLE_MUSIC}"]}}',
    ("voice_blocks", "dict_type"): 'an object like {"greetings": [{"text": "Hello"}]}',
    ("label", "string_type"): "a text",
    ("settings", "model_type"): 'an object like {"stability": 0.5}',
    ("select", "model_type"): 'an object like {"count": 50}',
    ("webhook", "model_type"): 'an object like {"url": "https://example.com/hook"}',
}
_RANGES = {
    "seed": "a whole number from 0 to 9,223,372,036,854,775,807",
    "select.count": "1 or more",
    "music_gain": "a number from -40 to 0",
    "voice_gain": "a number from -12 to 6",
    "spending_limit": "an amount in US dollars, 0 or more",
    **dict.fromkeys(("stability", "similarity_boost", "style"), "a number from 0 to 1"),
    "speed": "a number from 0.7 to 1.2",
    "volume": "a number from 0 (silent) to 4; 1 is as it is",
}
_MISSING = {
    "task_name": "give the task a name, which becomes its folder",
    "video_blocks": f'send at least one block like {{"hook": ["{EXAMPLE_LINK}"]}}',
    "count": "send how many combinations to make",
    "text": "write what to say",
    "url": "give the link",
}


def refusal(sentence: str) -> RequestError:
    return RequestError(sentence, code="invalid_request")


def problem(sentence: str) -> PydanticCustomError:
    """What a check raises: `sentence` follows the place; about the whole request it stands alone, with a full stop."""
    return PydanticCustomError("sentence", "{sentence}", {"sentence": sentence})


def first_refusal(error: ValidationError, known_fields: KnownFields) -> RequestError:
    """One mistake in full and the number of the others.

    An unknown field goes before the rest: often it is a missing one misspelt.
    """
    found = sorted(error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden")
    return refusal(_with_rest(_sentence(found[0], known_fields), len(found) - 1))


def quoted(name: str) -> str:
    return f'"{printable(name)}"'


def kind_of(value: object) -> str:
    names = {
        bool: "true or false",
        str: "a text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _with_rest(sentence: str, rest: int) -> str:
    if not rest:
        return sentence
    return f"{sentence.removesuffix('.')} (and {rest:,} more mistake{'s' if rest > 1 else ''})."


def _sentence(details: ErrorDetails, known_fields: KnownFields) -> str:
    found, location, value = details["type"], details["loc"], details["input"]
    place = place_of(location)
    match found:
        case "sentence":
            said = details["ctx"]["sentence"]
            sentence = f"{place} {said}." if place else said
        case "missing":
            sentence = f"{place} is missing: {_MISSING[str(location[-1])]}."
        case "extra_forbidden":
            sentence = _unknown_field(str(location[-1]), place, known_fields(location))
        case "literal_error":
            sentence = f"{place} must be {details['ctx']['expected'].replace(chr(39), chr(34))}."
        case "string_unicode":
            sentence = f"{place or 'A field name'} holds a broken character, half of a surrogate pair; remove it."
        case _ if found in _WANTED and _WANTED[found] != kind_of(value):
            wanted = _WANTED_IN.get((location[-1], found)) or _WANTED_IN.get((location[0], found), _WANTED[found])
            sentence = f"{place} must be {wanted}, not {kind_of(value)}{_remedy(wanted, value)}."
        case _:
            wanted = _RANGES.get(place) or _RANGES.get(str(location[-1]), "another value")
            sentence = f"{place} must be {wanted}."
    return sentence


def _remedy(wanted: str, value: object) -> str:
    if "number" in wanted and isinstance(value, str):
        return "; write it without quotes"
    if wanted == "a whole number" and isinstance(value, float):
        return " with a decimal point"
    if wanted == "a list" and isinstance(value, str | dict):
        return "; put it in [ ]"
    return ""


def _unknown_field(name: str, place: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:100], known, n=1)
    return f"{place} is not a known field; " + (
        f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}."
    )


def place_of(location: Location) -> str:
    """`video_blocks.hooks[2]`; names that are no plain words stand in quotes."""
    text = ""
    for step in location:
        if step in ("[key]", "[link]", "[object]"):
            continue
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[^\W\d][\w\-]{0,59}", step):
            text += f".{step}" if text else step
        else:
            text += f"[{quoted(step)}]" if text else quoted(step)
    return text
