from __future__ import annotations

import sys
from pathlib import Path

# The slow twins are imported by name.
sys.path.append(str(Path(__file__).parents[1] / "reference"))
