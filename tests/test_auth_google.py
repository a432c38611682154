"""Connecting Google Drive: the link, the browser that comes back, the code that is pasted, and what is kept."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from contracts.destination import virtual
from crosscut.bootstrap import open_commons
from crosscut.destinations.drive import DriveDestination
from crosscut.destinations.drive_account import Account
from crosscut.destinations.drive_auth import CONSENT_NOTE, Urls
from crosscut.destinations.drive_consent import Consent
from crosscut.destinations.drive_device import DeviceConsent
from crosscut.errors import CrosscutError
from crosscut.files import FileNotes
from crosscut.settings import Settings
from crosscut.store import Store
from drive_emulator import Emulator
from drive_model import CLIENT, DEVICE, REFRESH, SECRET, USER, Fault

BROWSER = "import sys, urllib.request\nurllib.request.urlopen(sys.argv[1], timeout=20).read()\n"
CONNECT = """
import sys
from pathlib import Path
from crosscut.commands.auth import connect
from crosscut.destinations.drive_auth import Urls
from crosscut.errors import CrosscutError
from crosscut.files import FileNotes
url, client, secret, path, manual = sys.argv[1:]
try:
    notes = FileNotes(Path(path).parent)
    print("connected as", connect(Urls.under(url), client, secret, notes, manual=manual == "manual"))
except CrosscutError as error:
    print(error.code)
"""


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "google.json"


def connecting(emulator, path, how, browser="false %s", client=CLIENT):
    """The command under way, as a user of a terminal has it."""
    return subprocess.Popen(
        [sys.executable, "-c", CONNECT, emulator.url, client, SECRET, str(path), how],
        env=os.environ | {"BROWSER": browser},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process, answer=""):
    out, err = process.communicate(answer, timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out.strip()


def link_of(process, root):
    for line in process.stderr:
        if line.startswith(root):
            return line.strip()
    raise AssertionError("no link was shown")


def sent_back(link):
    """Where the browser ends after the consent page."""
    return httpx2.get(link).headers["location"]


def test_the_browser_opens_and_comes_back(emulator, path, tmp_path):
    script = tmp_path / "browser.py"
    script.write_text(BROWSER)
    browser = f"{sys.executable} {script} %s"
    assert said(connecting(emulator, path, "browser", browser)) == f"connected as {USER}"
    kept = json.loads(path.read_text())
    assert (kept["refresh_token"], kept["client_id"], kept["account"]) == (REFRESH, CLIENT, USER)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_is_kept_delivers(emulator, path, tmp_path):
    consent = Consent(Urls.under(emulator.url), CLIENT, SECRET, "http://127.0.0.1:8085/")
    consent.keep(consent.pasted(sent_back(consent.link)), FileNotes(path.parent))
    account = Account(tmp_path / "drive", consent=FileNotes(path.parent), url=emulator.url)
    with DriveDestination("drive:", account).open("task") as delivery:
        delivery.put("1.mp4", virtual(b"data"))
    account.close()
    assert [node.data for node in emulator.children("task")] == [b"data"]


def test_strangers_who_knock_are_sent_away(emulator, path):
    process = connecting(emulator, path, "browser")
    link = link_of(process, emulator.url)
    redirect = parse_qs(urlsplit(link).query)["redirect_uri"][0]
    for query in ("?code=stolen&state=guessed", "?error=access_denied", "favicon.ico"):
        assert httpx2.get(f"{redirect}{query}").status_code == 400
    assert httpx2.get(sent_back(link)).status_code == 200
    assert said(process) == f"connected as {USER}"


def test_a_person_who_says_no_ends_it(emulator, path):
    emulator.consents = False
    process = connecting(emulator, path, "browser")
    assert httpx2.get(sent_back(link_of(process, emulator.url))).status_code == 400
    assert said(process) == "consent_refused"
    assert not path.exists()


@pytest.mark.parametrize("pasted", ["address", "code"])
def test_on_a_server_what_the_browser_shows_is_pasted(emulator, path, pasted):
    process = connecting(emulator, path, "manual")
    back = sent_back(link_of(process, emulator.url))
    code = parse_qs(urlsplit(back).query)["code"][0]
    assert said(process, f"  {back if pasted == 'address' else code}\n") == f"connected as {USER}"
    assert json.loads(path.read_text())["refresh_token"] == REFRESH


class TestConsent:
    @pytest.fixture
    def consent(self, emulator):
        return Consent(Urls.under(emulator.url), CLIENT, SECRET, "http://127.0.0.1:8085/")

    @staticmethod
    def refused(consent, path, text=None):
        with pytest.raises(CrosscutError) as caught:
            consent.keep(consent.pasted(sent_back(consent.link) if text is None else text), FileNotes(path.parent))
        assert not path.exists()
        return caught.value

    def test_nothing_pasted(self, consent, path):
        assert self.refused(consent, path, " \n").code == "consent_refused"

    def test_an_answer_to_another_question(self, consent, path, emulator):
        other = Consent(Urls.under(emulator.url), CLIENT, SECRET, "http://127.0.0.1:8085/")
        assert self.refused(consent, path, sent_back(other.link)).code == "consent_mixed_up"

    def test_a_code_of_another_question_is_no_good_without_its_verifier(self, consent, path, emulator):
        other = Consent(Urls.under(emulator.url), CLIENT, SECRET, "http://127.0.0.1:8085/")
        stolen = parse_qs(urlsplit(sent_back(other.link)).query)["code"][0]
        assert self.refused(consent, path, stolen).code == "consent_refused"

    def test_a_code_is_good_once(self, consent, path):
        back = sent_back(consent.link)
        assert consent.keep(consent.pasted(back), FileNotes(path.parent)) == USER
        path.unlink()
        assert self.refused(consent, path, back).code == "consent_refused"

    def test_a_box_that_was_not_ticked(self, consent, path, emulator):
        emulator.granted = "openid"
        assert self.refused(consent, path).code == "missing_scope"

    def test_an_api_that_is_not_enabled_is_said_at_once(self, consent, path, emulator):
        emulator.faults = [Fault("disabled", path="/about")]
        assert self.refused(consent, path).code == "api_disabled"

    def test_a_wrong_secret(self, path, emulator):
        consent = Consent(Urls.under(emulator.url), CLIENT, "wrong", "http://127.0.0.1:8085/")
        assert self.refused(consent, path).code == "wrong_credentials"

    def test_google_out_of_reach(self, consent, path, emulator):
        emulator.faults = [Fault("drop", path="/token")]
        error = self.refused(consent, path)
        assert (error.code, error.retryable) == ("unavailable", True)

    def test_secrets_are_not_shown(self, consent, path):
        told = repr(consent) + repr(vars(self.refused(consent, path, "4/some-code")))
        for secret in (SECRET, consent.verifier, consent.state, "4/some-code"):
            assert secret not in told

    def test_connecting_again_replaces_what_was_kept(self, consent, path):
        path.parent.mkdir()
        path.write_text("old")
        path.chmod(0o644)
        consent.keep(consent.pasted(sent_back(consent.link)), FileNotes(path.parent))
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())["refresh_token"] == REFRESH


class TestDevice:
    """A code that is typed on another machine."""

    @pytest.fixture
    def consent(self, emulator):
        return DeviceConsent(Urls.under(emulator.url), DEVICE, SECRET, second=0.01)

    def test_who_types_the_code_connects_and_videos_arrive(self, emulator, consent, path, tmp_path):
        code = consent.ask()
        assert (len(code.typed), code.page) == (9, "https://www.google.com/device")
        typing = threading.Timer(0.2, emulator.decide, (code.typed,))
        typing.start()
        assert consent.keep(code, FileNotes(path.parent)) == USER
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert emulator.count("POST", "/token") > 2
        account = Account(tmp_path / "drive", consent=FileNotes(path.parent), url=emulator.url)
        with DriveDestination("drive:", account).open("task") as delivery:
            delivery.put("1.mp4", virtual(b"video"))
        account.close()
        assert [node.name for node in emulator.children("task")] == ["1.mp4"]

    @pytest.mark.parametrize("decided", ["access_denied", "expired_token", "invalid_grant"])
    def test_who_does_not_allow_it_is_asked_no_more(self, emulator, consent, path, decided):
        code = consent.ask()
        emulator.decide(code.typed, decided)
        with pytest.raises(CrosscutError) as caught:
            consent.keep(code, FileNotes(path.parent))
        assert caught.value.code == "consent_refused"
        assert "again" in caught.value.public
        assert not path.exists()

    def test_a_code_that_nobody_types_runs_out(self, consent, path):
        code = replace(consent.ask(), lasts=20.0)
        with pytest.raises(CrosscutError, match="nobody has typed the code in time"):
            consent.keep(code, FileNotes(path.parent))

    def test_an_outage_meanwhile_is_sat_out(self, emulator, consent, path):
        code = consent.ask()
        emulator.decide(code.typed)
        emulator.faults = [Fault("503", path="/token", times=2)]
        assert consent.keep(code, FileNotes(path.parent)) == USER

    @pytest.mark.parametrize(("client", "told"), [(CLIENT, "TVs and Limited Input"), ("nobody", "does not know")])
    def test_a_client_of_another_type_is_said(self, consent, client, told):
        with pytest.raises(CrosscutError, match=told) as caught:
            replace(consent, client_id=client).ask()
        assert caught.value.code == "wrong_credentials"

    def test_the_command_says_where_and_what_to_type(self, emulator, tmp_path):
        environ = {"CROSSCUT_DATA_DIR": str(tmp_path), "CROSSCUT_GOOGLE_URL": emulator.url}
        environ |= {"CROSSCUT_GOOGLE_CLIENT_ID": DEVICE, "CROSSCUT_GOOGLE_CLIENT_SECRET": SECRET}
        command = [sys.executable, "-m", "crosscut", "auth", "google", "--device"]
        process = subprocess.Popen(command, env=os.environ | environ, stderr=subprocess.PIPE, text=True)
        shown = ""
        while "Waiting" not in shown:
            shown += process.stderr.readline()
        (device,) = emulator.devices.values()
        assert "https://www.google.com/device" in shown
        assert device.typed in shown
        assert device.code not in shown
        process.terminate()
        process.communicate(timeout=20)


def test_a_second_consent_replaces_the_first_on_all_machines(emulator, tmp_path, postgres):
    """Though the setting of the engine is not there, as where `serve --engine celery` is called."""
    cluster = Settings(_env_file=None, data_dir=tmp_path, engine="celery", database_url=postgres)
    Store(postgres).close()
    with open_commons(cluster) as commons:
        commons.own.put(CONSENT_NOTE, "the first")
    environ = {"CROSSCUT_DATA_DIR": str(tmp_path), "CROSSCUT_GOOGLE_URL": emulator.url}
    environ |= {"CROSSCUT_GOOGLE_CLIENT_ID": CLIENT, "CROSSCUT_GOOGLE_CLIENT_SECRET": SECRET}
    environ |= {"CROSSCUT_DATABASE_URL": postgres, "CROSSCUT_BROKER_URL": "redis://127.0.0.1:1/0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "crosscut", "auth", "google", "--manual"],
        env=os.environ | environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    answer = sent_back(link_of(process, emulator.url))
    assert said(process, f"{answer}\n") == f"Google Drive is connected as {USER}"
    with open_commons(cluster) as commons:
        assert json.loads(commons.own.get(CONSENT_NOTE))["refresh_token"] == REFRESH
