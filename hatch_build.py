"""What the wheel needs to run is what requirements.txt lists."""

from pathlib import Path
from typing import Any, Dict

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Requirements(MetadataHookInterface):
    """Read by `[tool.hatch.metadata.hooks.custom]` in pyproject.toml."""

    def update(self, metadata: Dict[str, Any]) -> None:
        """Add the dependencies."""
        text = Path(self.root, "requirements.txt").read_text("utf-8")
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        metadata["dependencies"] = [line for line in lines if line]
