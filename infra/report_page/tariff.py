"""What a run cost by a tariff that its user gives: prices of nodes by the hour, or of the parts in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from dhctl.infra.errors import SpecError, TariffError
from dhctl.infra.report_page.usage import Usage
from dhctl.infra.spec_base import Frozen
from dhctl.infra.yaml_model import parse_mapping, read_text, validated


class Tariff(Frozen):
    """Prices without tax or with it, as its user likes; all are for one hour."""

    currency: str
    """Code of the currency, such as EUR."""
    source: str = Field(default="", max_length=500)
    """Where the prices are from, for readers of the report."""
    flavors: dict[str, float] = Field(default_factory=dict)
    """Price of a node by its OpenStack flavor, as the spec names it."""
    worker_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a worker whose flavor is not named."""
    head_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a head whose flavor is not named."""
    cpu_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a core, for nodes that have no price of their own."""
    gpu_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a GPU, likewise."""
    gib_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a GiB of memory, likewise."""

    @field_validator("currency")
    @classmethod
    def _is_a_code(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Z]{3}", value):
            raise ValueError(f"{value!r} is no currency; write its three letters, such as EUR")
        return value

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        for flavor, price in self.flavors.items():
            if not 0 <= price < float("inf"):
                raise ValueError(f"flavors.{flavor} is {price}; a price is a number of at least 0")
        prices = (self.worker_hour, self.head_hour, self.cpu_hour, self.gpu_hour, self.gib_hour)
        if not self.flavors and all(price is None for price in prices):
            raise ValueError(f"it has no price; give at least one of {', '.join(PRICES)}")
        return self


PRICES = ("flavors", "worker_hour", "head_hour", "cpu_hour", "gpu_hour", "gib_hour")


@dataclass(frozen=True)
class Position:
    """One line of the bill. `amount` is None where the tariff has no price for it; `how` tells the price."""

    what: str
    hours: float
    amount: float | None
    how: str


@dataclass(frozen=True)
class Cost:
    """The bill. `total` is what is known; `complete` says whether that is all."""

    currency: str
    source: str
    positions: tuple[Position, ...]

    @property
    def total(self) -> float:
        """Of the positions that have a price."""
        return sum(position.amount or 0.0 for position in self.positions)

    @property
    def complete(self) -> bool:
        """Whether every position has one."""
        return all(position.amount is not None for position in self.positions)


def load_tariff(path: Path) -> Tariff:
    """The tariff in a YAML file. Raises TariffError with one sentence a mistake."""
    source = str(path)
    try:
        return validated(Tariff, parse_mapping(read_text(path), source, "docs/report.md"), source)
    except SpecError as error:
        raise TariffError(source, error.problems) from error


def cost_of(usage: Sequence[Usage], tariff: Tariff) -> Cost:
    """Every node by the price of its flavor, else its own price, else the prices of its parts."""
    return Cost(tariff.currency, tariff.source, tuple(_position(one, tariff) for one in usage))


def _position(used: Usage, tariff: Tariff) -> Position:
    by_flavor = tariff.flavors.get(used.size.flavor) if used.size.flavor else None
    whole = tariff.head_hour if used.what == "head" else tariff.worker_hour
    node_price = whole if by_flavor is None else by_flavor
    if node_price is not None:
        named = f"flavor {used.size.flavor}" if by_flavor is not None else "a node"
        return Position(used.what, used.hours, node_price * used.hours, f"{node_price:g} an hour for {named}")
    parts = [
        (name, each, price)
        for name, each, price in (
            ("core", used.size.cpus, tariff.cpu_hour),
            ("GPU", used.size.gpus, tariff.gpu_hour),
            ("GiB", used.size.memory_gib, tariff.gib_hour),
        )
        if price is not None and each
    ]
    if not parts:
        return Position(used.what, used.hours, None, "the tariff has no price for it")
    amount = sum(each * price for _, each, price in parts) * used.hours
    told = " + ".join(f"{each:g} {name} at {price:g}" for name, each, price in parts)
    return Position(used.what, used.hours, amount, f"{told} an hour")
