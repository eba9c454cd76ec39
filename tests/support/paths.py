"""Where things lie."""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[2]
#: Files of the first version of the formats.
V1 = ROOT / "tests" / "data" / "v1"
#: Recordings and texts that are not part of the repository; there on the developers' machines alone.
SHARED = ROOT.parent / "shared"
