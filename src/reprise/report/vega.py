"""Vega's JavaScript, for pages that fetch nothing."""

import functools

import vl_convert


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, out of vl-convert's wheel.

    Takes a second or two.
    """
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in script.lower():
        raise ValueError("Vega's JavaScript cannot stand in a page: it has the end of a script in it")
    return script
