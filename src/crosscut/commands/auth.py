"""The command that connects Google Drive: it asks for consent in the browser, and waits on loopback for the answer."""

from __future__ import annotations

import sys
import threading
import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from crosscut import bootstrap, cluster
from crosscut.commands.shared import load_settings
from crosscut.destinations.drive_auth import Urls
from crosscut.destinations.drive_consent import Consent
from crosscut.destinations.drive_device import DeviceConsent
from crosscut.errors import DeliverError, RequestError

if TYPE_CHECKING:
    from crosscut.commons import Notes

PATIENCE = 600.0
"""Seconds a person may take."""
ONE_ANSWER = 10.0
"""Seconds a browser may take to say where it was sent."""
NOWHERE = "http://127.0.0.1:8085/"
"""Where a browser on another machine is sent back to: it finds nothing there, but shows the address."""

auth = App(name="auth", help="Connect accounts that videos are delivered to.")


@auth.command
def google(
    *,
    manual: Annotated[
        bool, Parameter(help="For a server: open the link on any machine, and paste the address it ends at.")
    ] = False,
    device: Annotated[
        bool, Parameter(help="For a server, with a client of the type “TVs and Limited Input devices”: type a code.")
    ] = False,
) -> int:
    """Connect Google Drive: crosscut may then make files there, and sees none but its own.

    It needs an OAuth client of the type “Desktop app” from your Google Cloud project (another one for --device), as
    CROSSCUT_GOOGLE_CLIENT_ID and CROSSCUT_GOOGLE_CLIENT_SECRET, and the Google Drive API enabled there.
    """
    settings = load_settings()
    client_id, secret = settings.google_client_id, settings.google_client_secret
    if not client_id or secret is None:
        raise RequestError(
            "connecting Google Drive needs an OAuth client: make one of the type “Desktop app” in the Google Cloud"
            " console, and set CROSSCUT_GOOGLE_CLIENT_ID and CROSSCUT_GOOGLE_CLIENT_SECRET",
            code="no_client",
        )
    if manual and device:
        raise RequestError("--manual and --device are two ways to the same: use one", code="invalid_request")
    urls = Urls.under(settings.google_url)
    with bootstrap.open_commons(cluster.of_all_machines(settings)) as commons:
        if device:
            account = connect_device(DeviceConsent(urls, client_id, secret.get_secret_value()), commons.own)
        else:
            account = connect(urls, client_id, secret.get_secret_value(), commons.own, manual=manual)
    print(f"Google Drive is connected{f' as {account}' if account else ''}")  # noqa: T201
    return 0


def connect(urls: Urls, client_id: str, secret: str, notes: Notes, *, manual: bool) -> str:
    """Ask for consent and note it; whose it is."""
    if manual:
        consent = Consent(urls, client_id, secret, NOWHERE)
        _say(
            f"Open this link on any machine and allow it:\n\n{consent.link}\n\nThe browser ends at a page that it"
            " cannot open. Paste the address of that page:"
        )
        return consent.keep(consent.pasted(sys.stdin.readline()), notes)
    with _Ear() as ear:
        consent = Consent(urls, client_id, secret, f"http://127.0.0.1:{ear.server_port}/")
        _say(f"Allow it in the browser. If none opens, open this link on this machine:\n\n{consent.link}\n")
        # Some browsers keep whoever opens them until they are closed.
        threading.Thread(target=webbrowser.open, args=(consent.link,), daemon=True).start()
        return consent.keep(ear.heard(consent), notes)


def connect_device(consent: DeviceConsent, notes: Notes) -> str:
    """Ask for consent by a code that is typed on another machine, and note it; whose it is."""
    code = consent.ask()
    _say(f"On any machine open\n\n{code.page}\n\nand type {code.typed}, then allow it. Waiting…")
    return consent.keep(code, notes)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class _Ear(HTTPServer):
    """Waits on loopback for the browser that Google sends back."""

    timeout = 1.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.consent: Consent | None = None
        self.code: str | None = None
        self.refusal: DeliverError | None = None

    def heard(self, consent: Consent) -> str:
        """The code; others who knock are sent away."""
        self.consent = consent
        end = time.monotonic() + PATIENCE
        while self.code is None:
            self.handle_request()
            if self.refusal is not None:
                raise self.refusal
            if time.monotonic() >= end:
                raise DeliverError(
                    "nobody has allowed it in the browser: run crosscut auth google again, with --manual on a server",
                    code="consent_refused",
                )
        return self.code

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up; the browser that is waited for may still come."""


class _Handler(BaseHTTPRequestHandler):
    server: _Ear
    timeout = ONE_ANSWER

    def do_GET(self) -> None:
        assert self.server.consent is not None
        try:
            self.server.code = self.server.consent.answered(self.path.partition("?")[2])
        except DeliverError as error:
            if error.code != "consent_mixed_up":
                self.server.refusal = error
            self._page(400, "This did not work; the command line says more.")
        else:
            self._page(200, "Google Drive is connected. You may close this page.")

    def _page(self, status: int, text: str) -> None:
        body = f"<!doctype html><meta charset=utf-8><title>Crosscut</title><p>{text}".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The line that is asked for holds the code."""
