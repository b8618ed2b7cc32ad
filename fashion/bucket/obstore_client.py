"""obstore's client of a bucket with the cloud's own credentials, and which of its errors waiting does not mend."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fashion.bucket.address import Address
from fashion.errors import Problem, StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

CONNECT_SECONDS = 5.0
NO_BUCKET = ("there is no such bucket", "", "Create it, or correct the name")
MISSING = "Objects in a bucket need `pip install 'fashion-sweep[cloud]'`"


def make_client(address: Address, patience: float, quiet: float) -> ObjectStore:
    """obstore's client of the address's bucket, with names relative to the address. It repeats requests that failed on
    the way for `patience` seconds, and gives up a request after `quiet` seconds without an answer.

    Raises StorageError if obstore is not installed.
    """
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=quiet),
        "timeout": timedelta(hours=1),
    }
    retry: RetryConfig = {
        "max_retries": 1000,
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
    }
    try:
        return CLIENTS[address.scheme](address, options, retry)
    except ImportError:
        raise StorageError(Problem(str(address), MISSING)) from None


def _google(address: Address, options: ClientConfig, retry: RetryConfig) -> ObjectStore:
    from obstore.store import GCSStore

    options["allow_http"] = True  # takes effect only if Google's own settings name such a server: an emulator
    return GCSStore(address.bucket, prefix=address.prefix or None, client_options=options, retry_config=retry)


def _amazon(address: Address, options: ClientConfig, retry: RetryConfig) -> ObjectStore:
    from obstore.store import S3Store

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    more: dict[str, Any] = {}
    if endpoint:
        more["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    if provider := _boto3_credentials():
        more["credential_provider"] = provider
    prefix = address.prefix or None
    return S3Store(address.bucket, prefix=prefix, region=_region(), client_options=options, retry_config=retry, **more)


# The keys are those of `address.OBJECT_STORES`.
CLIENTS: Mapping[str, Callable[[Address, ClientConfig, RetryConfig], ObjectStore]] = {
    "s3": _amazon,
    "gs": _google,
}


def _boto3_credentials() -> Any:
    """boto3's credentials, which include profiles, SSO and roles as obstore's don't; None if boto3 finds none."""
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    session = boto3.Session()
    return Boto3CredentialProvider(session) if session.get_credentials() is not None else None


def _region() -> str:
    try:
        import boto3
    except ImportError:
        return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.Session().region_name or os.environ.get("AWS_REGION") or "us-east-1"


def refused(text: str) -> tuple[str, str, str]:
    """A store's refusal in words: the rule, what was received, how to mend it."""
    if "ExpiredToken" in text or "TokenExpired" in text or "expired" in text.lower():
        return "the credentials have expired", "", "Get new ones, for example with `aws sso login`"
    if "RequestTimeTooSkewed" in text:
        return "the clock of this machine is wrong", "", "Let NTP set it (chrony, systemd-timesyncd)"
    if "InvalidAccessKeyId" in text or "SignatureDoesNotMatch" in text or "InvalidClientTokenId" in text:
        return "the credentials are not accepted", "", "See `aws sts get-caller-identity`"
    return "may not be read or written with these credentials", "", "Allow it in the bucket's or the role's policy"


def hopeless(text: str) -> tuple[str, str, str] | None:
    """As `refused`, for any error that waiting does not mend; None for the others."""
    codes = "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "RequestTimeTooSkewed"
    if any(each in text for each in codes):
        return refused(text)
    if "NoSuchBucket" in text:
        return NO_BUCKET
    if "PermanentRedirect" in text or "AuthorizationHeaderMalformed" in text or "Received redirect" in text:
        return "the bucket is in another region", f"region {_region()}", "Set AWS_REGION to the bucket's"
    if "169.254.169.254" in text or "metadata.google" in text or "no credentials" in text.lower():
        return "no credentials were found", "", "Set AWS_PROFILE, AWS_ACCESS_KEY_ID or the machine's role"
    return None
