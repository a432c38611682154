"""Write the generated parts of the README and `.env.example`; a test compares them. Run by `make docs`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from crosscut.cli import app
from crosscut.settings import Settings, defaults_shown, dotenv_example

ROOT = Path(__file__).parent.parent
COMMANDS = ("render", "plan", "doctor")


def documents() -> dict[Path, str]:
    """Every file that is generated, wholly or in part, with the text it should have."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = _replaced(readme, "help", "\n\n".join(_help(name) for name in COMMANDS))
    readme = _replaced(readme, "settings", _settings())
    return {ROOT / "README.md": readme, ROOT / ".env.example": dotenv_example()}


def _help(command: str) -> str:
    text = io.StringIO()
    app.help_print([command], console=Console(file=text, width=100, color_system=None, legacy_windows=False))
    lines = [line.rstrip() for line in text.getvalue().strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


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
