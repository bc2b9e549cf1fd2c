"""Vega's JavaScript, for pages that fetch nothing."""

import functools

import vl_convert


@functools.cache
def vega(version: str | None = None) -> str:
    """Vega, Vega-Lite (of a version, or the newest) and Vega-Embed as one script, out of vl-convert's wheel.

    Takes a second or two.
    """
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    if "</script" in script.lower():
        raise ValueError("Vega's JavaScript cannot stand in a page: it has the end of a script in it")
    return script
