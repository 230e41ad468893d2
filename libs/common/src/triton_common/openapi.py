"""A service's OpenAPI document as docs/openapi keeps it; `python -m triton_common.openapi jobs-service` writes it."""

import importlib
import json
import sys
from pathlib import Path

from fastapi import FastAPI


def openapi_text(app: FastAPI) -> str:
    """The document as a file, stable from one run to the next."""
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def openapi_file(name: str, *, root: Path) -> Path:
    """Where the document of a service is kept, in the workspace at `root`."""
    return root / "docs" / "openapi" / f"{name}.json"


if __name__ == "__main__":
    service = sys.argv[1]
    built: FastAPI = importlib.import_module(f"{service.replace('-', '_')}.main").build()
    openapi_file(service, root=Path.cwd()).write_text(openapi_text(built))
