"""Buckets by name, and a connection to one: whose credentials are used is decided here, and never guessed."""

from __future__ import annotations

import configparser
import json
import os
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from crosscut.errors import DeliverError, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from obstore.store import ClientConfig, RetryConfig, S3Credential

Store: TypeAlias = GCSStore | S3Store | AzureStore

NAMES = {
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "az": re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*"),
}
"""Bucket names by scheme (Cloud Storage, "Bucket names"; S3, "General purpose bucket naming rules"; Azure, "Naming and
referencing containers"): none can be taken for another host or path."""

PREFIX_BYTES = 700
"""Keys have at most 1,024 bytes, of which a task's folder and a file's name may take 320."""

MOST_RETRIES = 20
"""Of one request, if `patience` does not end first: waits grow from a tenth of a second to 15."""

TIMEOUTS: ClientConfig = {"connect_timeout": "10s", "timeout": "5min"}
"""Of one request: a part must get through a slow line."""


@dataclass(frozen=True)
class Bucket:
    """`prefix` is empty or ends with a slash."""

    scheme: str
    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"


@dataclass(frozen=True)
class CloudOptions:
    """How buckets are reached, from settings; what is empty is looked for in the environment as each cloud has it.

    `cloud_identity` lets a machine of a cloud's own use the identity it was given there. Endpoints are for stores that
    speak the same protocol; `http://` is allowed for them alone. `assemble`: what many files share is sent once, and
    joined by a store that can. A request is tried again for `patience` seconds: what takes longer to pass is waited for
    by the job, which holds up nobody.
    """

    gcs_key_file: str = ""
    gcs_endpoint: str = ""
    s3_access_key_id: str = ""
    s3_secret_access_key: str = field(default="", repr=False)
    s3_region: str = ""
    s3_endpoint: str = ""
    azure_account: str = ""
    azure_key: str = field(default="", repr=False)
    azure_endpoint: str = ""
    cloud_identity: bool = False
    assemble: bool = True
    patience: float = 60.0


def is_bucket(place: str) -> bool:
    """Whether a place is meant to be a bucket, not a folder."""
    return place.partition("://")[0] in NAMES and "://" in place


def bucket_of(place: str) -> Bucket:
    """The bucket and prefix that `gs://bucket/prefix` names. Raises RequestError."""
    scheme, _, rest = place.partition("://")
    name, _, path = rest.partition("/")
    if scheme not in NAMES or not NAMES[scheme].fullmatch(name):
        raise _bad_place(place, f"{scheme}:// is followed by the name of a bucket, such as {scheme}://my-videos/spring")
    path = path.removesuffix("/")
    steps = path.split("/") if path else []
    if not path.isprintable() or len(path.encode()) > PREFIX_BYTES or set(path) & set("?#\\"):
        raise _bad_place(place, f"the folder behind the bucket has printable characters, at most {PREFIX_BYTES} bytes")
    if any(step in ("", ".", "..") for step in steps):
        raise _bad_place(
            place, "the folder behind the bucket has a name between every two slashes, none of them . or .."
        )
    return Bucket(scheme, name, f"{path}/" if path else "")


def connect(bucket: Bucket, options: CloudOptions, environ: Mapping[str, str] | None = None) -> Store:
    """A connection that has sent nothing yet. Raises DeliverError where credentials are missing or unusable.

    `environ` replaces the process's environment here, though not in what obstore reads itself beside it.
    """
    environ = os.environ if environ is None else environ
    connecting = {"gs": _gcs, "s3": _s3, "az": _azure}[bucket.scheme]
    try:
        return connecting(bucket, options, environ)
    except (BaseError, ValueError, OSError) as error:
        # What obstore says of credentials may quote them.
        raise DeliverError(
            f"the credentials for {bucket} cannot be used: check the variables and files they come from",
            code="wrong_credentials",
            detail=type(error).__name__,
        ) from None


def signs(store: Store) -> bool:
    """Whether links can be signed here; obstore would ask the metadata server else."""
    if isinstance(store, GCSStore):
        return bool({"service_account", "service_account_key"} & set(store.config))
    return isinstance(store, S3Store) or "account_key" in store.config


def s3_endpoint(options: CloudOptions, environ: Mapping[str, str] | None = None) -> str:
    """Where the store is that speaks the protocol of S3; empty: S3 itself."""
    environ = os.environ if environ is None else environ
    return options.s3_endpoint or _first(environ, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or ""


def _gcs(bucket: Bucket, options: CloudOptions, environ: Mapping[str, str]) -> Store:
    config: Any = {"base_url": options.gcs_endpoint} if options.gcs_endpoint else {}
    file = _google_file(options, environ)
    if file:
        kind = json.loads(file.read_bytes()).get("type")
        if kind not in ("service_account", "authorized_user"):
            raise DeliverError(
                f"{file.name} is no key that crosscut can use: make a key of a service account and name its file",
                code="wrong_credentials",
            )
        config["service_account" if kind == "service_account" else "application_credentials"] = str(file)
    elif key := environ.get("GOOGLE_SERVICE_ACCOUNT_KEY"):
        config["service_account_key"] = key
    elif not options.cloud_identity:
        raise _no_credentials(
            bucket,
            "set CROSSCUT_GCS_KEY_FILE or GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account,"
            " or run gcloud auth application-default login",
        )
    return GCSStore(
        bucket.name, config=config, client_options=_client(options.gcs_endpoint), retry_config=_retrying(options)
    )


def google_facts(options: CloudOptions, environ: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """What the key says that `connect` would use for gs://; None: the identity of this machine is used.

    Where `connect` raises nothing, this does not either.
    """
    environ = os.environ if environ is None else environ
    file = _google_file(options, environ)
    text = file.read_text(encoding="utf-8") if file else environ.get("GOOGLE_SERVICE_ACCOUNT_KEY")
    facts: dict[str, Any] | None = json.loads(text) if text else None
    return facts


def _google_file(options: CloudOptions, environ: Mapping[str, str]) -> Path | None:
    """Application Default Credentials (Google Cloud, "How ADC works") without the metadata server."""
    named = options.gcs_key_file or _first(
        environ, "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"
    )
    if named:
        return Path(named).expanduser()
    folder = environ.get("CLOUDSDK_CONFIG") or (f"{environ['HOME']}/.config/gcloud" if environ.get("HOME") else "")
    known = Path(folder, "application_default_credentials.json")
    return known if folder and known.is_file() else None


@dataclass(frozen=True)
class _Keys:
    """Handed to obstore as a whole, so that a session token in the environment is not mixed with other keys."""

    key_id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def __call__(self) -> S3Credential:
        return {
            "access_key_id": self.key_id,
            "secret_access_key": self.secret,
            "token": self.token,
            "expires_at": None,
        }


def _s3(bucket: Bucket, options: CloudOptions, environ: Mapping[str, str]) -> Store:
    profile = _profile(environ)
    keys = _s3_keys(options, environ, profile)
    by_token = environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environ.get("AWS_ROLE_ARN")
    if keys is None and not by_token and not options.cloud_identity:
        raise _no_credentials(
            bucket,
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or CROSSCUT_S3_ACCESS_KEY_ID and"
            " CROSSCUT_S3_SECRET_ACCESS_KEY, or run aws configure",
        )
    endpoint = s3_endpoint(options, environ)
    region = options.s3_region or _first(environ, "AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("region")
    config: Any = {"region": region or "us-east-1", "disable_bulk_delete": True}
    # Every request is signed with the SHA-256 of its body; S3 itself can also keep it.
    config |= {"endpoint": endpoint} if endpoint else {"checksum_algorithm": "SHA256"}
    return S3Store(
        bucket.name,
        config=config,
        client_options=_client(endpoint),
        retry_config=_retrying(options),
        credential_provider=keys,
    )


def _s3_keys(options: CloudOptions, environ: Mapping[str, str], profile: Mapping[str, str]) -> _Keys | None:
    if options.s3_access_key_id and options.s3_secret_access_key:
        return _Keys(options.s3_access_key_id, options.s3_secret_access_key)
    if options.s3_access_key_id or options.s3_secret_access_key:
        raise DeliverError(
            "set both CROSSCUT_S3_ACCESS_KEY_ID and CROSSCUT_S3_SECRET_ACCESS_KEY, or neither", code="no_credentials"
        )
    for source, names in (
        (environ, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")),
        (profile, ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")),
    ):
        key_id, secret, token = (source.get(name) for name in names)
        if key_id and secret:
            return _Keys(key_id, secret, token)
    return None


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """What the files of the AWS command line hold for the profile (AWS SDKs, "Shared config and credentials files")."""
    name, home = environ.get("AWS_PROFILE") or "default", environ.get("HOME", "")
    told: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = environ.get(variable) or (f"{home}/.aws/{file}" if home else "")
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read([path] if path else [], encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        told |= dict(parser.items(section)) if parser.has_section(section) else {}
    return told


AZURE_NAMES: Mapping[str, Sequence[str]] = {
    "account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"),
    "sas_key": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
    "client_id": ("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"),
    "client_secret": ("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
    "tenant_id": ("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID"),
    "federated_token_file": ("AZURE_FEDERATED_TOKEN_FILE",),
    "endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Options of obstore and the variables of the Azure command line and SDKs that say them."""

AZURE_CREDENTIALS = (
    ("account_key",),
    ("sas_key",),
    ("client_id", "client_secret", "tenant_id"),
    ("client_id", "federated_token_file", "tenant_id"),
)


def _azure(bucket: Bucket, options: CloudOptions, environ: Mapping[str, str]) -> Store:
    told = {name: value for name, names in AZURE_NAMES.items() if (value := _first(environ, *names))}
    ours = {"account_name": options.azure_account, "endpoint": options.azure_endpoint}
    told |= {name: value for name, value in ours.items() if value}
    if options.azure_key:
        told["account_key"] = options.azure_key
    if not told.get("account_name"):
        raise _no_credentials(bucket, "set CROSSCUT_AZURE_ACCOUNT or AZURE_STORAGE_ACCOUNT to the storage account")
    used = next((names for names in AZURE_CREDENTIALS if all(name in told for name in names)), None)
    if used is None and not options.cloud_identity:
        raise _no_credentials(bucket, "set CROSSCUT_AZURE_KEY, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN")
    config: Any = {name: told[name] for name in ("account_name", "endpoint", *(used or ())) if name in told}
    return AzureStore(
        bucket.name, config=config, client_options=_client(told.get("endpoint", "")), retry_config=_retrying(options)
    )


def _client(endpoint: str) -> ClientConfig:
    return {**TIMEOUTS, "allow_http": endpoint.startswith("http://")}


def _retrying(options: CloudOptions) -> RetryConfig:
    return {"max_retries": MOST_RETRIES, "retry_timeout": timedelta(seconds=options.patience)}


def _first(environ: Mapping[str, str], *names: str) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _no_credentials(bucket: Bucket, how: str) -> DeliverError:
    return DeliverError(
        f"there are no credentials for {bucket}: {how};"
        " on a machine with an identity in its cloud, CROSSCUT_CLOUD_IDENTITY=true uses that",
        code="no_credentials",
    )


def _bad_place(place: str, rule: str) -> RequestError:
    return RequestError(f"“{place[:200]}” is no place for files: {rule}", code="bad_destination")
