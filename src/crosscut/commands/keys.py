"""The commands for API keys; they manage those of this machine's state, through its server while one runs."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from cyclopts import App, Parameter

from crosscut import bootstrap, cluster, standalone
from crosscut.client import Client, running
from crosscut.commands.shared import dump, load_settings
from crosscut.errors import RequestError, ServerError
from crosscut.webhooks import installation_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosscut.settings import Settings

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NOT_RUNNING = ("no_server", "unreachable")

AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON.")]

keys = App(name="keys", help="Make, list and revoke the API keys of this machine's server.")


class KeyStore(Protocol):
    """Where keys are kept; a running server is one, the state itself another."""

    def create_key(
        self, owner: str, name: str, replaces: str | None = None, overlap_seconds: float = 0
    ) -> tuple[str, str]: ...

    def list_keys(self) -> list[dict[str, Any]]: ...

    def revoke_key(self, key: str) -> None: ...


@keys.command
def create(
    *,
    owner: Annotated[str, Parameter(help="Whose jobs it sees and makes.")],
    name: Annotated[str, Parameter(help="What it is called in the list; default: as its owner.")] = "",
    replaces: Annotated[str | None, Parameter(help="Id of a key that it takes the place of.")] = None,
    overlap: Annotated[
        str, Parameter(help="How long the replaced key goes on, such as 24h or 7d.", show_default=True)
    ] = "24h",
    as_json: AsJson = False,
) -> int:
    """Make an API key and print it: this is the only time it is shown."""
    seconds = _seconds(overlap)
    with _key_store(load_settings()) as store:
        key, token = store.create_key(owner, name or owner, replaces, seconds if replaces else 0)
    if as_json:
        dump({"id": key, "token": token})
    else:
        print(token)  # noqa: T201
    return 0


@keys.command(name="list")
def list_keys(*, as_json: AsJson = False) -> int:
    """List the API keys: ids, owners, names; the keys themselves are not kept."""
    with _key_store(load_settings()) as store:
        found = store.list_keys()
    if as_json:
        dump({"keys": found})
    else:
        from crosscut.terminal import show_keys  # noqa: PLC0415 - rich is slow to import and not needed for JSON

        show_keys(found)
    return 0


@keys.command
def revoke(key: Annotated[str, Parameter(help="The key's id.")], /) -> int:
    """End an API key at once."""
    with _key_store(load_settings()) as store:
        store.revoke_key(key)
    print(f"{key}: revoked")  # noqa: T201
    return 0


@keys.command(name="webhook-secret")
def webhook_secret() -> int:
    """Print the secrets that sign this server's webhooks, for those who receive them."""
    settings = load_settings()
    configured = [secret.get_secret_value() for secret in settings.webhook_secrets]
    if not configured:
        with bootstrap.open_commons(cluster.of_all_machines(settings)) as commons:
            configured = [installation_secret(commons.own)]
    print("\n".join(configured))  # noqa: T201
    return 0


@contextlib.contextmanager
def _key_store(settings: Settings) -> Iterator[KeyStore]:
    """The server that runs here, which owns its state, or the state where none runs."""
    with contextlib.ExitStack() as stack:
        try:
            address = running(settings.data_dir)
            client = stack.enter_context(Client(address.url, address.token))
            client.list_keys()
        except ServerError as error:
            if error.code not in NOT_RUNNING:
                raise
            store: KeyStore = stack.enter_context(standalone.open_store(settings))
        else:
            store = client
        yield store


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip(), re.ASCII)
    if not found:
        raise RequestError(f"--overlap {text!r} is not a time; write it like 24h or 7d", code="invalid_overlap")
    return int(found[1]) * SECONDS[found[2]]
