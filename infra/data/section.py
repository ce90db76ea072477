"""What a spec says of data stores and caches."""

from __future__ import annotations

from pydantic import Field

from dhctl.infra.spec_base import Frozen, Name
from dhctl.infra.units import Size


class DataStore(Frozen):
    """A place with data: an S3 prefix, a shared volume or a folder."""

    url: str = Field(min_length=1)
    """`s3://BUCKET/PREFIX`, with `?endpoint_override=HOST&scheme=http&region=R` where needed, or a folder."""
    residency: Name | None = None
    """The only site at which its data may be used."""


class CacheSection(Frozen):
    """Where nodes keep what they fetched from S3. Folders named here stay after the run; without them, nothing does."""

    folder: str | None = Field(default=None, min_length=1)
    """Folder on each node's own disk."""
    size: Size = Field(default=20 * 2**30, ge=2**20, json_schema_extra={"default": "20GiB"})
    """Most that it holds; what was used longest ago goes first."""
    shared: str | None = Field(default=None, min_length=1)
    """Folder on a volume that all nodes of the site have; it is asked before the store."""
    shared_size: Size = Field(default=200 * 2**30, ge=2**20, json_schema_extra={"default": "200GiB"})
    """Most that the shared folder holds."""
