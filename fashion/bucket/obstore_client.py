"""obstore's client of a bucket, with the cloud's own credentials, and what its errors mean that waiting does not mend."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fashion.bucket.address import Address
from fashion.errors import Problem, StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

CONNECT_SECONDS = 5.0
NO_BUCKET = ("there is no such bucket", "", "Make it, or mend the name")
MISSING = "Objects in a bucket need `pip install 'fashion-sweep[cloud]'`"


def make_client(address: Address, patience: float, quiet: float) -> ObjectStore:
    """obstore's client of the address's bucket, whose names are relative to the address. It repeats what failed on the way for
    `patience` seconds, and gives up a request after `quiet` seconds without an answer.

    Raises StorageError where obstore is not installed.
    """
    try:
        from obstore.store import GCSStore, S3Store
    except ImportError:
        raise StorageError(Problem(str(address), MISSING)) from None
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
    prefix = address.prefix or None
    if address.scheme == "gs":
        options["allow_http"] = True  # only if its own settings name such a server, as emulators are
        return GCSStore(address.bucket, prefix=prefix, client_options=options, retry_config=retry)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    more: dict[str, Any] = {}
    if endpoint:
        more["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    if provider := _boto3_credentials():
        more["credential_provider"] = provider
    return S3Store(address.bucket, prefix=prefix, region=_region(), client_options=options, retry_config=retry, **more)


def _boto3_credentials() -> Any:
    """Profiles, SSO and roles, which boto3 knows and obstore does not; None where boto3 finds nothing."""
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
    """What to tell of a refusal: the rule, what was received, how to mend it."""
    if "ExpiredToken" in text or "TokenExpired" in text or "expired" in text.lower():
        return "the credentials have expired", "", "Get new ones (`aws sso login`, say)"
    if "RequestTimeTooSkewed" in text:
        return "the clock of this machine is wrong", "", "Let NTP set it (chrony, systemd-timesyncd)"
    if "InvalidAccessKeyId" in text or "SignatureDoesNotMatch" in text or "InvalidClientTokenId" in text:
        return "the credentials are not accepted", "", "See `aws sts get-caller-identity`"
    return "may not be read or written with these credentials", "", "Allow it in the bucket's or the role's policy"


def hopeless(text: str) -> tuple[str, str, str] | None:
    """As `refused` for other errors that waiting does not mend; None for the rest."""
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
