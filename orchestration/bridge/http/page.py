"""The description for people: one page made from the OpenAPI document, which loads and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8885; border-radius: .25rem }
summary { cursor: pointer; padding: .4rem 0 }
details { border-bottom: 1px solid #8883 }
nav a { margin-right: 1rem }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CSP: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def of(document: dict[str, Any]) -> str:
    """Write the page."""
    info = document["info"]
    operations = "".join(
        _operation(path, method.upper(), one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    )
    schemas = "".join(_schema(name, one) for name, one in sorted(document["components"]["schemas"].items()))
    title = html.escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f"<p>{html.escape(info['summary'])}</p>"
        "<p>Every request below <code>/v1/</code> shows a token: <code>Authorization: Bearer …</code>. "
        'This page as a document for programs: <a href="/v1/openapi.json">/v1/openapi.json</a>.</p>'
        f"<h2>Operations</h2>{operations}<h2>Models</h2>{schemas}</body></html>\n"
    )


def _operation(path: str, method: str, one: dict[str, Any]) -> str:
    asks = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answers = next(iter(one["responses"]["200"]["content"].items()))
    asked = f"<p>Asked with {_model(asks)}.</p>" if asks else ""
    statuses = ", ".join(sorted(one["responses"]))
    return (
        f'<details id="{html.escape(one["operationId"])}"><summary><code>{method} {html.escape(path)}</code> '
        f"{html.escape(one['summary'])}</summary>{asked}"
        f"<p>Answered with {_model(answers[1]['schema'])} as <code>{html.escape(answers[0])}</code>."
        f" Statuses: {statuses}.</p>"
        "</details>"
    )


def _model(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name:
        return f'<a href="#model-{html.escape(name)}"><code>{html.escape(name)}</code></a>'
    return f"<code>{html.escape(str(schema.get('type', 'anything')))}</code>"


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = html.escape(json.dumps(schema, indent=2, ensure_ascii=False))
    shown = html.escape(name)
    return f'<details id="model-{shown}"><summary><code>{shown}</code></summary><pre>{text}</pre></details>'
