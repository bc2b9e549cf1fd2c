// The table of runs (sort, filter, select) and the charts of the selected runs. Texts become text nodes, never markup.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const readJson = (id) => JSON.parse(byId(id).textContent);
  const { runs, groups, lengths, balance, sweeps, searches, chosen: initial } = readJson("content");
  const specs = JSON.parse(byId("charts").textContent, keepApart);
  const MAX_RUNS = 8; // runs in one chart
  const FEW_LABELS = 12; // of a matrix with a cell for every pair; confusion.py has the same
  const MAX_ROWS = 100; // rows of the table until "Show all": browsers lay out thousands of cells slowly

  // ---- selection: one slot per colour with the index of a run, which keeps its colour while it is selected

  const slots = new Array(MAX_RUNS).fill(null);
  const chosen = () => slots.filter((run) => run !== null);
  const color = (run) => (slots.includes(run) ? `var(--run-${slots.indexOf(run)})` : "var(--other)");
  const dashed = (run) => slots.indexOf(run) >= MAX_RUNS / 2;
  const style = (run) => ({ run: runs[run].name, color: color(run), dash: dashed(run) ? [6, 3] : [1, 0] });

  // ---- charts: the rows of each, and the fields and headings of its table

  // Convert columns of numbers to rows of a run.
  function toRows(run, columns) {
    const names = Object.keys(columns);
    const length = names.length ? columns[names[0]].length : 0;
    return Array.from({ length }, (_, at) => ({
      ...style(run),
      ...Object.fromEntries(names.map((name) => [name, columns[name][at]])),
    }));
  }
  const forChosen = (rows) => chosen().flatMap(rows);
  const curve = (field, title) => ({
    rows: () => forChosen((run) => toRows(run, runs[run].curve)),
    columns: { run: "run", step: "step", [field]: title },
  });
  const fixedRows = (rows, columns) => ({ rows: () => rows, columns });
  const selectedOption = (id) => byId(id)?.value;
  const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

  const charts = {
    loss: curve("loss", "mean loss"),
    learning_rate: curve("learning_rate", "learning rate"),
    grad_norm: curve("grad_norm", "largest gradient norm"),
    epochs: {
      rows: () =>
        forChosen((run) =>
          toRows(run, runs[run].epochs).map((row) => ({ ...row, value: row[selectedOption("epoch-metric")] })),
        ),
      columns: { run: "run", epoch: "epoch", value: "value" },
    },
    pr: {
      rows: () =>
        forChosen((run) =>
          toRows(run, own(runs[run].pr, selectedOption("label")) ?? {}).map((row, order) => ({ ...row, order })),
        ),
      columns: { run: "run", recall: "recall", precision: "precision" },
    },
    calibration: {
      rows: () => forChosen((run) => toRows(run, runs[run].calibration)),
      columns: { run: "run", confidence: "confidence", accuracy: "accuracy", rows: "examples" },
    },
    ...Object.fromEntries(["predicted", "residuals"].map((name) => [name, {
      rows: () => forChosen((run) => toRows(run, runs[run].residuals)),
      columns: { run: "run", actual: "actual", predicted: "predicted", residual: "predicted minus actual" },
    }])),
    seeds: {
      rows: () => {
        const name = selectedOption("seed-metric");
        return groups.flatMap(({ label, spread, seeds }) => {
          const [mean, sd] = spread[name] ?? [];
          const drawn = { group: label, mean, sd, low: mean - sd, high: mean + sd };
          return seeds
            .filter(({ metrics }) => name in metrics)
            .map(({ seed, run, metrics }, place) => ({
              ...drawn,
              first: place === 0,
              seed,
              run: run === null ? "reprise seed-noise" : runs[run].name,
              color: run === null ? "var(--other)" : color(run),
              value: metrics[name],
            }));
        });
      },
      columns: { group: "recipe", seed: "seed", run: "run", value: "value", mean: "mean", sd: "standard deviation" },
    },
    lengths: fixedRows(lengths, {
      split: "split", min: "shortest", q25: "25 %", q50: "median", q75: "75 %", q95: "95 %", q99: "99 %", max: "longest",
    }),
    balance: fixedRows(balance, { split: "split", label: "label", count: "examples", fraction: "fraction" }),
  };
  sweeps.forEach((key, number) => {
    charts[`sweep ${number}`] = {
      rows: () =>
        runs.flatMap(({ name, params, metrics }, run) => {
          const [value, low, high] = metrics[selectedOption("sweep-metric")] ?? [];
          if (value === undefined || !(key in params)) return [];
          const drawn = { run: name, color: color(run), chosen: slots.includes(run), from: low ?? value, to: high ?? value };
          return [{ ...drawn, param: params[key], value, low, high }];
        }),
      columns: { run: "run", param: key, value: "value", low: "low", high: "high" },
    };
  });

  for (const [name, { rows, columns }] of Object.entries(searches)) charts[name] = fixedRows(rows, columns);

  function confusion(run) {
    const { labels, confusion: cells } = runs[run];
    const totals = labels.map((_, actual) => cells.reduce((sum, cell) => sum + (cell[0] === actual ? cell[2] : 0), 0));
    const counts = new Map(cells.map(([actual, predicted, count]) => [`${actual} ${predicted}`, count]));
    const rows = labels.flatMap((actual, from) =>
      labels.map((predicted, to) => {
        const count = counts.get(`${from} ${to}`) ?? 0;
        return { actual, predicted, from, to, count, fraction: totals[from] ? count / totals[from] : 0 };
      }),
    ).filter(({ from, to, count }) => labels.length <= FEW_LABELS || count > 0 || from === to);
    return fixedRows(cells.length ? rows : [], { actual: "actual", predicted: "predicted", count: "examples", fraction: "fraction" });
  }

  // ---- drawing

  const labelled = { labelColor: "var(--muted)", titleColor: "var(--ink)", labelFontSize: 12, titleFontSize: 12 };
  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { ...labelled, gridColor: "var(--line)", domainColor: "var(--other)", tickColor: "var(--other)", titleFontWeight: 500 },
    legend: labelled,
    range: { category: Array.from({ length: MAX_RUNS }, (_, place) => `var(--run-${place})`) },
  };
  // `ast` interprets expressions instead of eval, which the content security policy forbids.
  const options = { renderer: "svg", actions: false, ast: true, config };
  const views = new WeakMap();

  // Draw a figure after its previous drawing is done, with the state of that moment.
  function draw(figure, spec, chart) {
    figure.drawn = (figure.drawn ?? Promise.resolve()).then(() => drawNow(figure, spec, chart));
    return figure.drawn;
  }

  async function drawNow(figure, spec, chart) {
    if (!figure.isConnected) return;
    const plot = figure.querySelector(".plot");
    const shown = chart.rows();
    tabulate(figure, shown, chart.columns);
    const rows = JSON.parse(JSON.stringify(shown), keepApart);
    plot.classList.toggle("nothing", rows.length === 0);
    if (rows.length === 0) {
      views.get(plot)?.finalize();
      views.delete(plot);
      plot.textContent = chosen().length ? "No data" : "No run is selected";
    } else if (views.has(plot)) {
      await views.get(plot).data("rows", rows).runAsync();
    } else {
      plot.textContent = "";
      const { view } = await vegaEmbed(plot, { ...spec, datasets: { ...spec.datasets, rows } }, options);
      // For screen readers a chart is its name and its table; hundreds of points are of no use.
      plot.querySelector("svg").ariaHidden = "true";
      views.set(plot, view);
    }
  }

  // Fill the table of a chart when it is opened.
  function tabulate(figure, rows, columns) {
    const details = figure.querySelector(".as-table");
    const place = details.querySelector(".scroll");
    const fill = () => {
      if (!details.open) return;
      const table = document.createElement("table");
      const head = table.createTHead().insertRow();
      for (const [field, heading] of Object.entries(columns)) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.textContent = heading;
        cell.classList.toggle("number", typeof rows[0]?.[field] === "number");
        head.append(cell);
      }
      const body = table.createTBody();
      for (const row of rows) {
        const line = body.insertRow();
        for (const field of Object.keys(columns)) {
          const value = row[field];
          const cell = line.insertCell();
          cell.textContent = typeof value === "number" ? Number(value.toPrecision(5)) : (value ?? "–");
          cell.classList.toggle("number", typeof value === "number");
        }
      }
      place.replaceChildren(table);
    };
    details.ontoggle = fill;
    fill();
  }

  const drawing = [];
  const drawAll = (names) => {
    for (const figure of document.querySelectorAll("figure[data-chart]")) {
      const name = figure.dataset.chart;
      if (name in charts && (!names || names.some((each) => name.startsWith(each)))) {
        drawing.push(draw(figure, specs[name], charts[name]));
      }
    }
  };

  function drawConfusions() {
    const host = byId("confusions");
    if (!host) return;
    for (const plot of host.querySelectorAll(".plot")) views.get(plot)?.finalize();
    host.replaceChildren();
    for (const run of chosen().filter((run) => runs[run].confusion.length)) { // none if examples have several labels
      const figure = byId("confusion").content.firstElementChild.cloneNode(true);
      const name = runs[run].name;
      figure.querySelector("strong").textContent = `Confusion: ${name}`;
      if (runs[run].confusion_note) figure.querySelector("figcaption p").append(` ${runs[run].confusion_note}`);
      figure.querySelector(".visually-hidden").textContent = `: confusion of ${name}`;
      figure.querySelector(".plot").ariaLabel = `Confusion of ${name}: a chart, below as a table`;
      figure.querySelector(".scroll").ariaLabel = `Confusion of ${name}, as a table`;
      host.append(figure);
      drawing.push(draw(figure, specs.confusion, confusion(run)));
    }
  }

  // ---- select runs

  const table = byId("table");
  const body = table.tBodies[0];
  const lines = [...body.rows];
  const box = (run) => lines[run].querySelector("input");
  const status = byId("status");

  function setOptions(select, values) {
    const before = select.value;
    select.replaceChildren(...values.map((value) => new Option(value)));
    if (values.includes(before)) select.value = before;
    select.parentElement.hidden = values.length < 2;
  }
  const union = (lists) => [...new Set(lists.flat())];

  function updateChosen() {
    const now = chosen();
    byId("chosen").replaceChildren(
      ...now.map((run) => {
        const item = document.createElement("li");
        const swatch = document.createElement("span");
        swatch.className = dashed(run) ? "swatch dashed" : "swatch";
        swatch.style.borderTopColor = color(run);
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = "×";
        remove.ariaLabel = `Remove ${runs[run].name}`;
        remove.addEventListener("click", () => {
          choose(run, false);
          (byId("chosen").querySelector("button") ?? box(run)).focus();
        });
        item.append(swatch, runs[run].name, remove);
        return item;
      }),
    );
    // validation.csv lists the metric that selects the epoch last; it is the first option.
    setOptions(byId("epoch-metric"), union(now.map((run) => Object.keys(runs[run].epochs).slice(1).reverse())));
    if (byId("label")) setOptions(byId("label"), union(now.map((run) => Object.keys(runs[run].pr))));
    drawAll();
    drawConfusions();
  }

  function choose(run, wanted) {
    const place = slots.indexOf(wanted ? null : run);
    status.textContent = "";
    if (place === -1) status.textContent = `At most ${MAX_RUNS} runs can be selected: remove one first.`;
    else slots[place] = wanted ? run : null;
    box(run).checked = slots.includes(run);
    if (place !== -1) updateChosen();
  }
  body.addEventListener("change", ({ target }) => choose(Number(target.closest("tr").dataset.run), target.checked));

  // ---- rows of the table: those that pass the filter, sorted

  let order = lines;
  let passes = () => true;
  let all = false;

  function show() {
    const left = order.filter(passes);
    const few = all || left.length <= MAX_ROWS;
    body.replaceChildren(...(few ? left : left.slice(0, MAX_ROWS)));
    byId("shown").textContent = `${left.length} of ${lines.length} runs`;
    byId("none").hidden = left.length > 0;
    byId("more").hidden = few;
    byId("more").textContent = `Show all ${left.length}`;
  }
  byId("more").addEventListener("click", () => {
    all = true;
    show();
    body.rows[MAX_ROWS].querySelector("input").focus();
  });

  // ---- sort

  const heads = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator("en", { numeric: true });
  const keyOf = (line, column) => line.cells[column].dataset.key;

  function sort(column) {
    const head = heads[column];
    const numeric = head.classList.contains("number");
    const before = head.ariaSort;
    // Numbers are sorted in descending order first, because large values are usually of interest; of an error or a cost
    // it is the small ones.
    const down = before === "none" ? numeric && head.dataset.best !== "low" : before === "ascending";
    for (const other of heads) if (other.ariaSort) other.ariaSort = "none";
    head.ariaSort = down ? "descending" : "ascending";
    const keyed = lines.map((line) => [keyOf(line, column), line]);
    const compare = numeric ? (a, b) => a - b : collator.compare;
    keyed.sort(([a], [b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // missing values last
      return down ? compare(b, a) : compare(a, b);
    });
    order = keyed.map(([, line]) => line);
    show();
  }
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => sort(column)));

  // ---- filter

  const normalize = (heading) => heading.trim().toLowerCase().replaceAll(" ", "_");
  const columnNames = heads.map((head) => normalize(head.textContent));
  // Find a column by its name, or by the last part of a dotted parameter.
  const columnOf = (name) => {
    const exact = columnNames.indexOf(name);
    return exact >= 0 ? exact : columnNames.findIndex((heading) => heading.split(".").at(-1) === name);
  };
  const rowText = new Map(lines.map((line) => [line, line.textContent.toLowerCase()]));
  const comparisons = {
    ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  };

  function test(term) {
    const [, name, sign, wanted] = /^([^<>=!]+)(>=|<=|!=|=|<|>)(.+)$/.exec(term) ?? [];
    const column = name === undefined ? -1 : columnOf(name);
    if (column < 0) {
      const spaced = term.replaceAll("_", " ");
      return (line) => rowText.get(line).includes(term) || rowText.get(line).includes(spaced);
    }
    const number = Number(wanted);
    return (line) => {
      const key = keyOf(line, column);
      if (key === undefined) return sign === "!=";
      if (Number.isNaN(number) || Number.isNaN(Number(key))) return comparisons[sign](key.toLowerCase(), wanted);
      return comparisons[sign](Number(key), number);
    };
  }

  function filter() {
    const tests = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    passes = (line) => tests.every((passesTest) => passesTest(line));
    show();
  }
  byId("filter").addEventListener("input", filter);
  byId("filter").form.addEventListener("submit", (event) => event.preventDefault());

  // ---- other events

  for (const [id, names] of Object.entries({
    "epoch-metric": ["epochs"], label: ["pr"], "sweep-metric": ["sweep"], "seed-metric": ["seeds"],
  })) byId(id)?.addEventListener("change", () => drawAll(names));

  // A link to a run opens its commands.
  const open = () => {
    const details = location.hash && byId(location.hash.slice(1));
    if (details instanceof HTMLDetailsElement) details.open = true;
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", ({ target }) => target.matches("a") && setTimeout(open));

  byId("no-script").remove();
  filter();
  initial.forEach((run, place) => {
    slots[place] = run;
    box(run).checked = true;
  });
  for (const line of lines) if (!initial.includes(Number(line.dataset.run))) line.querySelector("input").checked = false;
  updateChosen();
  open();
  // Tests wait for this attribute.
  document.documentElement.dataset.drawn = "";
  Promise.all(drawing).then(() => { document.documentElement.dataset.drawn = "all"; });
})();
