"""What the pages share: text from outside put into HTML as data, and a policy that lets nothing else run.

Text from outside passes jinja2's autoescaping, or lies in JSON whose `<`, `>` and `&` are escaped, which the page's
script puts in place as text alone. The content security policy names style and script by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def json_for_html(value: Any) -> Markup:
    """Compact ASCII JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def page_hash(text: str) -> str:
    """As a content security policy names an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def page_text(name: str) -> str:
    """A file of the folder `page`."""
    return (resources.files("nemo_pipeline.view") / "page" / name).read_text(encoding="utf-8")


def page_environment() -> jinja2.Environment:
    """Templates of the folder `page`, escaping what is put into them."""
    loader = jinja2.FunctionLoader(page_text)
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=loader, trim_blocks=True
    )
