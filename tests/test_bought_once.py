"""The whole engine with a voice that costs money: what is bought, and what keeps it from being bought."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crosscut.errors import RequestError
from elevenlabs_emulator import KEY, Emulator
from engine_play import Place, body, provide, running

TEXTS = ("Try it today.", "It is free for a week.", "Send it back if you like.")
LINES = [{"text": text, "voice": "Adam"} for text in TEXTS]
CHARACTERS = sum(map(len, TEXTS))


@pytest.fixture
def shop():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def selling(shop, **more):
    return {"elevenlabs_api_key": KEY, "elevenlabs_url": shop.url, **more}


def texts(shop):
    return sorted(sale.text for sale in shop.sales)


def test_a_thousand_variations_with_three_lines_cost_three_purchases(place, shop):
    document = body(10, 10, 10, encoded=False, text_to_speech=LINES)
    with running(place, **selling(shop)) as engine:
        status = engine.ended(engine.submit(document), 120)
        assert (status["succeeded"], status["failed"]) == (1_000, 0), (status["errors"], engine.log.getvalue()[-3000:])
        assert (status["voice_over_characters_billed"], status["voice_over_characters"]) == (CHARACTERS, CHARACTERS)
        assert status["cost"]["voice_over"] == pytest.approx(CHARACTERS * 0.0001, abs=1e-4)
        again = engine.ended(engine.submit(document | {"task_name": "another", "select": {"count": 3}}))
        assert (again["succeeded"], again["voice_over_characters_billed"]) == (3, 0)
        assert KEY not in engine.log.getvalue()
    assert texts(shop) == sorted(TEXTS)
    assert all(KEY not in path.read_text(errors="replace") for path in place.data.rglob("*") if path.is_file())


def test_what_was_bought_survives_the_loss_of_every_other_piece(place, shop):
    document = body(1, 1, encoded=False, text_to_speech=LINES[:1])
    with running(place, **selling(shop)) as engine:
        engine.ended(engine.submit(document))
    for path in (place.data / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    with running(place, **selling(shop)) as engine:
        status = engine.ended(engine.submit(document | {"task_name": "another"}))
        assert (status["succeeded"], status["failed"]) == (1, 0)
    assert texts(shop) == [TEXTS[0]]


def test_two_processes_with_the_same_lines_at_once_buy_them_once(place, shop):
    shop.seconds = 0.3
    document = body(2, 1, encoded=False, text_to_speech=LINES)
    provide(place, document)
    environment = os.environ | {
        "CROSSCUT_DATA_DIR": str(place.data),
        "CROSSCUT_ELEVENLABS_API_KEY": KEY,
        "CROSSCUT_ELEVENLABS_URL": shop.url,
        "CROSSCUT_WORKERS": "1",
    }
    runs = []
    for name in ("one", "two"):
        request = place.root / f"{name}.json"
        request.write_text(json.dumps(document | {"task_name": name}))
        command = [sys.executable, "-m", "crosscut", "render", str(request), "--to", str(place.out), "--json"]
        runs.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    reports = []
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        assert KEY not in out + err
        reports.append(json.loads(out))
    assert [report["made"] for report in reports] == [2, 2]
    assert texts(shop) == sorted(TEXTS)
    assert sum(report["voice_over_characters_billed"] for report in reports) == CHARACTERS


def test_a_plan_buys_nothing_and_tells_the_price(place, shop):
    document = body(1, 1, encoded=False, text_to_speech=LINES)
    with running(place, **selling(shop)) as engine:
        job = engine.submit(document, mode="plan")
        engine.ended(job)
        plan = engine.machine.service.plan(job, None)
        assert plan["cost"] == {
            "currency": "USD",
            "voice_over": pytest.approx(CHARACTERS * 0.0001, abs=1e-4),
            "to_buy": pytest.approx(CHARACTERS * 0.0001, abs=1e-4),
            "characters_to_buy": CHARACTERS,
        }
        assert plan["shorter_than_voice_over"]["exact"] is False
    assert shop.sales == []


def test_a_line_nobody_can_speak_costs_its_own_variations_alone(place, shop):
    lines = [*LINES[:1], {"text": "Hello there.", "voice": "Nobody"}]
    with running(place, **selling(shop)) as engine:
        status = engine.ended(engine.submit(body(3, 2, encoded=False, text_to_speech=lines)))
        assert (status["succeeded"], status["failed"]) == (3, 3)
        (error,) = status["errors"]
        assert "Nobody" in error["reason"]
        plan = engine.submit(body(1, 1, task="planned", encoded=False, text_to_speech=lines), mode="plan")
        assert engine.ended(plan)["state"] == "done"
    assert texts(shop) == [TEXTS[0]]


def test_what_costs_more_than_the_limit_is_refused_before_anything_is_bought(place, shop):
    document = body(1, 1, encoded=False, text_to_speech=LINES, spending_limit=0.005)
    with running(place, **selling(shop)) as engine:
        with pytest.raises(RequestError) as caught:
            engine.submit(document)
        assert caught.value.code == "spending_limit"
        assert shop.sales == []
        # What has been bought costs nothing any more.
        assert engine.ended(engine.submit(document | {"spending_limit": 1}))["succeeded"] == 1
        assert engine.ended(engine.submit(document | {"task_name": "again"}))["succeeded"] == 1


@pytest.mark.parametrize("fault", ["quota", "invalid_key"])
def test_a_refused_account_fails_the_line_once_and_says_what_to_do(place, shop, fault):
    shop.faults.extend([fault] * 9)
    with running(place, **selling(shop)) as engine:
        status = engine.ended(engine.submit(body(1, 1, encoded=False, text_to_speech=LINES[:1])))
        assert (status["succeeded"], status["failed"]) == (0, 1)
        assert {"quota": "credits", "invalid_key": "key"}[fault] in status["errors"][0]["reason"]
        assert KEY not in engine.log.getvalue()
    assert (shop.sales, shop.orders) == ([], 1)


def test_without_a_key_elevenlabs_cannot_be_asked_for(place):
    with pytest.raises(RequestError, match="CROSSCUT_ELEVENLABS_API_KEY"), running(place, voices="elevenlabs"):
        pass


def test_the_key_may_have_the_name_its_maker_gives_it(monkeypatch, tmp_path):
    from crosscut.settings import Settings

    monkeypatch.setenv("ELEVENLABS_API_KEY", KEY)
    settings = Settings(_env_file=None, data_dir=Path(tmp_path))
    assert settings.elevenlabs_api_key is not None
    assert settings.elevenlabs_api_key.get_secret_value() == KEY
    assert KEY not in repr(settings)
