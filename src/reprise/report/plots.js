// Draws the plots of `dvc plots show`. Their data is text after <plaintext>, where nothing can end it or act as markup,
// and DVC's own scripts never run.
(() => {
  "use strict";
  const page = document.getElementById("plots");

  // The element of a plot (dvc_render.vega.VegaRenderer.DIV). Its JSON is one line.
  const PLOT = /<div id = "[^"]*">\s*<script[^>]*>\s*var spec = (.*);\s*vegaEmbed\('[^']*', spec\);\s*<\/script>\s*<\/div>/g;

  // `ast` interprets expressions instead of eval, which the content security policy forbids.
  const OPTIONS = { ast: true, renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };

  function add(tag, text = "") {
    const element = document.createElement(tag);
    element.textContent = text;
    page.append(element);
    return element;
  }

  async function draw() {
    const text = document.getElementById("given").textContent;
    // A plot without rows, which is of another kind of task, has an empty specification.
    const plots = [...text.matchAll(PLOT)].filter(([, json]) => json.trim() !== "{}");
    for (const [, json] of plots) {
      const plot = add("div");
      try {
        await vegaEmbed(plot, JSON.parse(json, keepApart), OPTIONS);
      } catch (error) {
        plot.textContent = `A plot cannot be drawn: ${error.message}`;
      }
    }
    // What is left are images of the user's own plots, parsed without being shown.
    for (const { title, source } of images(text.replace(PLOT, ""))) {
      add("p", title);
      add("img").src = source;
    }
    if (page.childElementCount === 0) add("p", "There are no plots.");
    document.documentElement.dataset.drawn = "all"; // tests wait for it
  }

  const images = (markup) =>
    [...new DOMParser().parseFromString(markup, "text/html").querySelectorAll("div > p + img")].map((image) => ({
      title: image.previousElementSibling.textContent,
      source: image.getAttribute("src"),
    }));

  addEventListener("DOMContentLoaded", draw);
})();
