"""Why a version is not let in."""

from __future__ import annotations


class Refused(Exception):
    """A version is not let in; `reason` is a stable word for metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)

    @property
    def for_memory(self) -> bool:
        """Whether it may be let in once others have gone."""
        return self.reason == "memory_budget"

    @property
    def for_features(self) -> bool:
        """Whether it may be let in once the store has others."""
        return self.reason in ("features_unusable", "features_unknown")

    @property
    def for_formulas(self) -> bool:
        """Whether it may be let in once the formulas have changed."""
        return self.reason == "fusion_invalid"
