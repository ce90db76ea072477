"""What all parts of a spec have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
"""A DNS label of at most 40 characters: it becomes part of names in every cloud."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Of a run, a store, a site."""


class Frozen(BaseModel):
    """Base of all parts of a spec: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_timedelta="iso8601")
