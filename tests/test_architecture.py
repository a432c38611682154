"""Map, disk, contracts and documents tell the same story."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import crosscut

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "crosscut"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def modules_on_disk():
    files = {path.stem for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return (files | folders) - {"__init__", "__main__"}


def map_lines():
    return re.findall(r"^    (\w+) +(\S.*)$", crosscut.__doc__, flags=re.MULTILINE)


def test_the_map_names_every_module_once():
    names = [name for name, _ in map_lines()]
    assert sorted(names) == sorted(modules_on_disk())


def test_what_the_map_calls_pure_is_held_to_it():
    pure = {name for name, words in map_lines() if words.endswith(" pure")}
    contract = next(contract for contract in CONTRACTS if contract["name"].startswith("Pure"))
    held = {name.removeprefix("crosscut.") for name in contract["source_modules"]}
    assert pure == held


def test_generated_documents_are_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [path.name for path, text in generate.documents().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run make docs"


def test_every_request_field_is_in_the_readme():
    from crosscut.request import RequestBody

    table = re.search(r"<!-- fields: begin -->(.*)<!-- fields: end -->", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    told = set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))
    optional = {name for name, field in RequestBody.model_fields.items() if not field.is_required()}
    assert told == optional - {"audio_blocks", "text_to_speech", "text_to_speach", "voice_blocks"}


def test_the_readme_library_example_runs(tmp_path, monkeypatch):
    import json

    from clips import make_clip

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(tmp_path / "data"))
    make_clip(tmp_path / "a.mp4")
    (tmp_path / "request.json").write_text(json.dumps({"task_name": "t", "video_blocks": {"a": ["a.mp4"]}}))
    code = re.search(r"## As a library\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert list((tmp_path / "videos" / "t").glob("*.mp4"))
