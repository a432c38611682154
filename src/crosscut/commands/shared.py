"""What all commands share: exit statuses, settings, reading a request, printing JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError

from crosscut.errors import RequestError
from crosscut.settings import Settings

ALL_MADE, SOME_FAILED, REFUSED, BROKEN, INTERRUPTED = 0, 1, 2, 70, 130
STANDARD_INPUT = "-"

RequestFile = Annotated[
    str, Parameter(help="JSON file with the request; - reads it from standard input.", allow_leading_hyphen=True)
]


def load_settings() -> Settings:
    """The settings, or a RequestError that names the one that is no use."""
    try:
        return Settings()
    except UnicodeDecodeError as error:
        raise RequestError("the file .env is not UTF-8 text: save it as such", code="invalid_setting") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = f"CROSSCUT_{str(first['loc'][0]).upper()}"
        raise RequestError(f"the setting {name} is not usable: {first['msg']}", code="invalid_setting") from error


def read_body(name: str) -> tuple[bytes, Path]:
    """The bytes of a request and the folder its relative paths start from."""
    try:
        if name == STANDARD_INPUT:
            return sys.stdin.buffer.read(), Path.cwd()
        return Path(name).read_bytes(), Path(name).absolute().parent
    except OSError as error:
        raise RequestError(f"cannot read {name}: {os.strerror(error.errno or 0).lower()}", code="no_request") from error


def dump(value: Any) -> None:
    """Print a value as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
