"""The S3 side of a run, from the client: whether its buckets can be used, and a job's files beside its checkpoints.

Keys, region and endpoint as boto3 finds them (`AWS_*`, `AWS_ENDPOINT_URL`, ~/.aws), and what an `s3://` URL's query
says of endpoint and region, as the jobs read it (dhctl.ray_jobs.storage).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import tenacity

from dhctl.infra.errors import RefusedError
from dhctl.ray_jobs.data.patience import PATIENCE_ENV, patience_from

TRIES = 4
CONNECT_S, READ_S = 5, 30
_KNOWN = {"endpoint_override", "scheme", "region"}


class ObjectStoreError(RefusedError):
    """A bucket that cannot be reached, is not there, or refuses the keys."""


@dataclass(frozen=True)
class Place:
    """A prefix in a bucket: the part of an `s3://` URL before its query, and the options in it."""

    url: str
    bucket: str
    prefix: str
    options: dict[str, str]

    @classmethod
    def of(cls, url: str) -> Place:
        """Raises ObjectStoreError with a sentence when the URL names no bucket, or an option that nobody knows."""
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if not parts.netloc:
            raise ObjectStoreError(f"'{url}' names no bucket", "write s3://BUCKET/PREFIX")
        unknown = sorted(options.keys() - _KNOWN)
        if unknown:
            raise ObjectStoreError(f"'{url}' has the option {unknown[0]}", f"use {', '.join(sorted(_KNOWN))}")
        return cls(url, parts.netloc, parts.path.strip("/"), options)

    def client(self) -> Any:
        """boto3's client, path style, with retries and deadlines. Opens no connection."""
        import boto3
        from botocore.config import Config

        endpoint = self.options.get("endpoint_override")
        if endpoint and "://" not in endpoint:
            endpoint = f"{self.options.get('scheme', 'https')}://{endpoint}"
        config = Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": TRIES},
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
        )
        region = self.options.get("region")
        return boto3.client("s3", endpoint_url=endpoint, region_name=region or _region(), config=config)

    def key(self, name: str) -> str:
        """The key of a file under the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name


def _region() -> str | None:
    """boto3 wants some region where a store of one's own has none."""
    import boto3

    return boto3.session.Session().region_name or "us-east-1"


def problem_with(url: str, key: str, *, wants_files: bool) -> str:
    """A sentence why a run cannot use this URL, "" when it can. `key` is the spec's. Only reads.

    `wants_files`: whether something must lie under the prefix, as with data.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        place = Place.of(url)
        found = place.client().list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, MaxKeys=1)
    except ObjectStoreError as error:
        return f"{key}: {error}"
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        return f"{key} {url} cannot be listed ({code}); {_NEXT.get(code, 'check bucket, keys and endpoint')}"
    except (BotoCoreError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        return f"{key} {url} cannot be reached ({told}); set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL"
    if wants_files and not found.get("KeyCount"):
        return f"{key} {url} is empty; check the prefix, or put the files there first"
    return ""


_NEXT = {
    "NoSuchBucket": "make the bucket first, or name one that is there",
    "AccessDenied": "the keys have no right to it; ask its owner",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
}


AWAY_S = 90.0
"""How long a store that does not answer is asked again: longer than a restart of it takes. DHCTL_STORE_PATIENCE_S says
another time, as for jobs."""

LONGEST_PAUSE_S = 10.0


def keep_files(output: str, folder: str, files: list[Path]) -> None:
    """Copies files of the record under `<output>/<folder>/`; a store that is away for a while is asked again.

    Raises ObjectStoreError when it stays away, or refuses.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    place = Place.of(output)
    asking = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_away),
        stop=tenacity.stop_after_delay(
            patience_from({PATIENCE_ENV: os.environ.get(PATIENCE_ENV) or str(AWAY_S)}).seconds
        ),
        wait=tenacity.wait_exponential(0.5, max=LONGEST_PAUSE_S),
        reraise=True,
    )
    try:
        client = place.client()
        for path in files:
            if path.is_file():
                asking(client.upload_file, str(path), place.bucket, place.key(f"{folder}/{path.name}"))
    except (BotoCoreError, ClientError, S3UploadFailedError, ValueError) as error:
        told = f"the job's log could not be copied to {output} ({error})"
        raise ObjectStoreError(told, "it lies in the record") from error


def is_away(error: BaseException) -> bool:
    """Whether no answer came, or one that says that the store is in trouble; boto3 hides that one behind its own."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError  # noqa: A004 - botocore's own

    answer = error if isinstance(error, ClientError) else error.__context__
    if isinstance(answer, ClientError):
        return int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(error, HTTPClientError | ConnectionError)
