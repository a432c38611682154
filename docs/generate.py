"""Write the generated documents, and the generated parts of others; a test compares them. Run by `make docs`."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console

from crosscut import __version__
from crosscut.api import create_app
from crosscut.api.options import ApiOptions
from crosscut.cli import app
from crosscut.settings import Settings, defaults_shown, dotenv_example

if TYPE_CHECKING:
    from crosscut.ports import Service

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "render", "plan", "doctor", "serve", "worker", "health", "submit", "jobs", "watch", "cancel", "keys create",
    "keys list", "keys revoke", "keys webhook-secret",
)  # fmt: skip


def documents() -> dict[Path, str]:
    """Every file that is generated, wholly or in part, with the text it should have."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = _replaced(readme, "commands", _commands())
    readme = _replaced(readme, "settings", _settings())
    return {
        ROOT / "README.md": readme,
        ROOT / ".env.example": dotenv_example(),
        ROOT / "docs" / "commands.md": _command_pages(),
        ROOT / "docs" / "openapi.json": _openapi(),
    }


def _commands() -> str:
    rows = ["| command | what it does |", "|---|---|"]
    for name in COMMANDS:
        told = _help(name).splitlines()[2]
        rows.append(f"| [`{name}`](docs/commands.md#{name.replace(' ', '-')}) | {told} |")
    return "\n".join(rows)


def _command_pages() -> str:
    pages = [f"## {name}\n\n```text\n{_help(name)}\n```" for name in COMMANDS]
    return "\n\n".join(["# Commands", "What `crosscut COMMAND --help` prints.", *pages]) + "\n"


def _help(command: str) -> str:
    text = io.StringIO()
    app.help_print(command.split(), console=Console(file=text, width=100, color_system=None, legacy_windows=False))
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def _openapi() -> str:
    class Nothing:
        """The document asks nothing of a service."""

        metrics = None

    document = create_app(cast("Service", Nothing), ApiOptions(auth=True, version=__version__)).openapi()
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _settings() -> str:
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = defaults_shown(name)
        rows.append(f"| `CROSSCUT_{name.upper()}` | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join(rows)


def _replaced(text: str, part: str, content: str) -> str:
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
