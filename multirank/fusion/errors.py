"""What ends a `multirank fusion` command."""

from __future__ import annotations


class FusionCommandError(Exception):
    """What was asked for cannot be done; the message says why and what would help."""
