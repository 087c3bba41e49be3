"""The processors of the image by the names that the catalog gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from worker_image.processors.alignment import Bam, Sam
from worker_image.processors.base import Processor

REGISTRY: Final[Mapping[str, type[Processor]]] = {processor.name: processor for processor in (Bam, Sam)}
