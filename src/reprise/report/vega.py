"""Vega's JavaScript, for pages that work offline."""

import functools

import vl_convert


@functools.cache
def vega() -> str:
    """Bundle Vega, Vega-Lite and Vega-Embed from the vl-convert package into one script; takes a second or two.

    Raises:
        ValueError: the script contains a closing script tag and cannot be embedded.
    """
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in script.lower():
        raise ValueError("Vega's JavaScript cannot be embedded: it contains a closing script tag")
    return script
