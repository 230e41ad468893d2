"""What a job's agents may cost: tokens, and money by the prices of AGENT_PRICES."""

import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from triton_common.errors import Internal

PER: Final = 1_000_000  # tokens that a price is for, as providers list them

Amount = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=6)]


class AgentBudgetExceeded(Internal):
    """The job's agents used up what they may: model calls, tokens or money."""


class Price(BaseModel):
    """Of a model's tokens, per million."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Amount
    output: Amount


class Budget:
    """One job's, shared by its agents. Any thread may spend."""

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        max_cost: Decimal | None = None,
        prices: Mapping[str, Price] | None = None,
        currency: str = "USD",
    ) -> None:
        self.currency = currency
        self.tokens = 0
        self.cost = Decimal(0)
        self._max_tokens = max_tokens
        self._max_cost = max_cost
        self._prices = prices or {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Before a call: what a call costs is known after it, so the last one may pass the limit. Raises
        AgentBudgetExceeded."""
        if self._max_tokens is not None and self.tokens >= self._max_tokens:
            raise AgentBudgetExceeded(f"The job's agents used {self.tokens} tokens of {self._max_tokens}.")
        if self._max_cost is not None and self.cost >= self._max_cost:
            raise AgentBudgetExceeded(
                f"The job's agents cost {self.cost:.2f} {self.currency}, and may cost {self._max_cost:.2f}."
            )

    def spend(self, model: str, *, input_tokens: int, output_tokens: int) -> Decimal | None:
        """Take a call's tokens into account. What it cost; None for a model without a price."""
        price = self._prices.get(model)
        cost = (price.input * input_tokens + price.output * output_tokens) / PER if price else None
        with self._lock:
            self.tokens += input_tokens + output_tokens
            self.cost += cost or 0
        return cost
