// The table (sort, filter, choose) and the charts of what is chosen. Texts become text nodes, never markup.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const parsed = (id) => JSON.parse(byId(id).textContent);
  const { runs, groups, lengths, balance, sweeps, chosen: initial } = parsed("content");
  const specs = parsed("charts");
  const MOST = 8; // runs over each other
  const AT_ONCE = 100; // rows of the table, unless all are asked for: a browser lays out thousands of cells slowly

  // ---- what is chosen: the numbers of runs by their place among the colours, which they keep while they are chosen

  const places = new Array(MOST).fill(null);
  const chosen = () => places.filter((run) => run !== null);
  const color = (run) => (places.includes(run) ? `var(--run-${places.indexOf(run)})` : "var(--other)");
  const dashed = (run) => places.indexOf(run) >= MOST / 2;
  const style = (run) => ({ run: runs[run].name, color: color(run), dash: dashed(run) ? [6, 3] : [1, 0] });

  // ---- charts: what each one's rows are, and which of their fields its table has

  // Columns of numbers as rows of a run.
  function unfolded(run, columns) {
    const names = Object.keys(columns);
    const length = names.length ? columns[names[0]].length : 0;
    return Array.from({ length }, (_, at) => ({
      ...style(run),
      ...Object.fromEntries(names.map((name) => [name, columns[name][at]])),
    }));
  }
  const ofChosen = (rows) => chosen().flatMap(rows);
  const curve = (field, title) => ({
    rows: () => ofChosen((run) => unfolded(run, runs[run].curve)),
    columns: { run: "run", step: "step", [field]: title },
  });
  const asRows = (rows, columns) => ({ rows: () => rows, columns });
  const selected = (id) => byId(id)?.value;

  const charts = {
    loss: curve("loss", "mean loss"),
    learning_rate: curve("learning_rate", "learning rate"),
    grad_norm: curve("grad_norm", "largest gradient norm"),
    epochs: {
      rows: () =>
        ofChosen((run) =>
          unfolded(run, runs[run].epochs).map((row) => ({ ...row, value: row[selected("epoch-figure")] })),
        ),
      columns: { run: "run", epoch: "epoch", value: "value" },
    },
    pr: {
      rows: () =>
        ofChosen((run) =>
          unfolded(run, runs[run].pr[selected("label")] ?? {}).map((row, order) => ({ ...row, order })),
        ),
      columns: { run: "run", recall: "recall", precision: "precision" },
    },
    calibration: {
      rows: () => ofChosen((run) => unfolded(run, runs[run].calibration)),
      columns: { run: "run", confidence: "how sure", accuracy: "how often right", rows: "rows" },
    },
    seeds: {
      rows: () => {
        const name = selected("seed-figure");
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
    lengths: asRows(lengths, {
      split: "split", min: "shortest", q25: "25 %", q50: "median", q75: "75 %", q95: "95 %", q99: "99 %", max: "longest",
    }),
    balance: asRows(balance, { split: "split", label: "label", count: "rows", share: "share" }),
  };
  sweeps.forEach((key, number) => {
    charts[`sweep ${number}`] = {
      rows: () =>
        runs.flatMap(({ name, params, metrics }, run) => {
          const [value, low, high] = metrics[selected("sweep-figure")] ?? [];
          if (value === undefined || !(key in params)) return [];
          const drawn = { run: name, color: color(run), chosen: places.includes(run), from: low ?? value, to: high ?? value };
          return [{ ...drawn, param: params[key], value, low, high }];
        }),
      columns: { run: "run", param: key, value: "value", low: "low", high: "high" },
    };
  });

  function confusion(run) {
    const { labels, confusion: cells } = runs[run];
    const whole = labels.map((_, actual) => cells.reduce((sum, cell) => sum + (cell[0] === actual ? cell[2] : 0), 0));
    const known = new Map(cells.map(([actual, predicted, count]) => [`${actual} ${predicted}`, count]));
    const rows = labels.flatMap((actual, from) =>
      labels.map((predicted, to) => {
        const count = known.get(`${from} ${to}`) ?? 0;
        return { actual, predicted, count, share: whole[from] ? count / whole[from] : 0 };
      }),
    );
    return asRows(cells.length ? rows : [], { actual: "actual", predicted: "predicted", count: "rows", share: "share" });
  }

  // ---- drawing

  const labelled = { labelColor: "var(--muted)", titleColor: "var(--ink)", labelFontSize: 12, titleFontSize: 12 };
  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { ...labelled, gridColor: "var(--line)", domainColor: "var(--other)", tickColor: "var(--other)", titleFontWeight: 500 },
    legend: labelled,
    range: { category: Array.from({ length: MOST }, (_, place) => `var(--run-${place})`) },
  };
  // The interpreter of expressions instead of eval, which the page's policy forbids.
  const options = { renderer: "svg", actions: false, ast: true, config };
  const views = new WeakMap();

  // A figure is drawn once at a time, each time as things stand by then.
  function draw(figure, spec, chart) {
    figure.drawn = (figure.drawn ?? Promise.resolve()).then(() => drawNow(figure, spec, chart));
    return figure.drawn;
  }

  async function drawNow(figure, spec, chart) {
    if (!figure.isConnected) return;
    const plot = figure.querySelector(".plot");
    const rows = chart.rows();
    tabulate(figure, rows, chart.columns);
    plot.classList.toggle("nothing", rows.length === 0);
    if (rows.length === 0) {
      views.get(plot)?.finalize();
      views.delete(plot);
      plot.textContent = chosen().length ? "Nothing to draw" : "No run is chosen";
    } else if (views.has(plot)) {
      await views.get(plot).data("rows", rows).runAsync();
    } else {
      plot.textContent = "";
      const { view } = await vegaEmbed(plot, { ...spec, datasets: { ...spec.datasets, rows } }, options);
      // To who listens, a chart is its name and its table; hundreds of points with their colours would say less.
      plot.querySelector("svg").ariaHidden = "true";
      views.set(plot, view);
    }
  }

  // The same as a table, made when it is opened.
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
    for (const run of chosen()) {
      const figure = byId("confusion").content.firstElementChild.cloneNode(true);
      const name = runs[run].name;
      figure.querySelector("strong").textContent = `Confusion: ${name}`;
      figure.querySelector(".unseen").textContent = `: confusion of ${name}`;
      figure.querySelector(".plot").ariaLabel = `Confusion of ${name}: a chart, below as a table`;
      figure.querySelector(".scroll").ariaLabel = `Confusion of ${name}, as a table`;
      host.append(figure);
      drawing.push(draw(figure, specs.confusion, confusion(run)));
    }
  }

  // ---- the choice of runs

  const table = byId("table");
  const body = table.tBodies[0];
  const lines = [...body.rows];
  const box = (run) => lines[run].querySelector("input");
  const said = byId("said");

  function offer(select, values) {
    const before = select.value;
    select.replaceChildren(...values.map((value) => new Option(value)));
    if (values.includes(before)) select.value = before;
    select.parentElement.hidden = values.length < 2;
  }
  const union = (lists) => [...new Set(lists.flat())];

  function chooseAgain() {
    const now = chosen();
    byId("chosen").replaceChildren(
      ...now.map((run) => {
        const item = document.createElement("li");
        const swatch = document.createElement("span");
        swatch.className = dashed(run) ? "swatch dashed" : "swatch";
        swatch.style.borderTopColor = color(run);
        const drop = document.createElement("button");
        drop.type = "button";
        drop.textContent = "×";
        drop.ariaLabel = `Leave out ${runs[run].name}`;
        drop.addEventListener("click", () => {
          choose(run, false);
          (byId("chosen").querySelector("button") ?? box(run)).focus();
        });
        item.append(swatch, runs[run].name, drop);
        return item;
      }),
    );
    // The metric that chose the epoch stands last in validation.csv, so it is what is offered first.
    offer(byId("epoch-figure"), union(now.map((run) => Object.keys(runs[run].epochs).slice(1).reverse())));
    if (byId("label")) offer(byId("label"), union(now.map((run) => Object.keys(runs[run].pr))));
    drawAll();
    drawConfusions();
  }

  function choose(run, wanted) {
    const place = places.indexOf(wanted ? null : run);
    said.textContent = "";
    if (place === -1) said.textContent = `No more than ${MOST} runs can be told apart: leave one out first.`;
    else places[place] = wanted ? run : null;
    box(run).checked = places.includes(run);
    if (place !== -1) chooseAgain();
  }
  body.addEventListener("change", ({ target }) => choose(Number(target.closest("tr").dataset.run), target.checked));

  // ---- what the table shows: the lines that pass the filter, in order

  let order = lines;
  let passes = () => true;
  let all = false;

  function show() {
    const left = order.filter(passes);
    const few = all || left.length <= AT_ONCE;
    body.replaceChildren(...(few ? left : left.slice(0, AT_ONCE)));
    byId("shown").textContent = `${left.length} of ${lines.length} runs`;
    byId("none").hidden = left.length > 0;
    byId("more").hidden = few;
    byId("more").textContent = `Show all ${left.length}`;
  }
  byId("more").addEventListener("click", () => {
    all = true;
    show();
    body.rows[AT_ONCE].querySelector("input").focus();
  });

  // ---- sort

  const heads = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator("en", { numeric: true });
  const keyOf = (line, column) => line.cells[column].dataset.key;

  function sort(column) {
    const head = heads[column];
    const numeric = head.classList.contains("number");
    const before = head.ariaSort;
    // What is large is mostly what one looks for, so numbers come largest first.
    const down = before === "none" ? numeric : before === "ascending";
    for (const other of heads) if (other.ariaSort) other.ariaSort = "none";
    head.ariaSort = down ? "descending" : "ascending";
    const keyed = lines.map((line) => [keyOf(line, column), line]);
    const compare = numeric ? (a, b) => a - b : collator.compare;
    keyed.sort(([a], [b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is not there, last
      return down ? compare(b, a) : compare(a, b);
    });
    order = keyed.map(([, line]) => line);
    show();
  }
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => sort(column)));

  // ---- filter

  const plain = (heading) => heading.trim().toLowerCase().replaceAll(" ", "_");
  const named = heads.map((head) => plain(head.textContent));
  // A column by its name, or by what comes after the last dot of a parameter.
  const columnOf = (name) => {
    const whole = named.indexOf(name);
    return whole >= 0 ? whole : named.findIndex((heading) => heading.split(".").at(-1) === name);
  };
  const words = new Map(lines.map((line) => [line, line.textContent.toLowerCase()]));
  const holds = {
    ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  };

  function test(term) {
    const [, name, sign, wanted] = /^([^<>=!]+)(>=|<=|!=|=|<|>)(.+)$/.exec(term) ?? [];
    const column = name === undefined ? -1 : columnOf(name);
    if (column < 0) return (line) => words.get(line).includes(term);
    const number = Number(wanted);
    return (line) => {
      const key = keyOf(line, column);
      if (key === undefined) return sign === "!=";
      if (Number.isNaN(number) || Number.isNaN(Number(key))) return holds[sign](key.toLowerCase(), wanted);
      return holds[sign](Number(key), number);
    };
  }

  function filter() {
    const tests = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    passes = (line) => tests.every((holds) => holds(line));
    show();
  }
  byId("filter").addEventListener("input", filter);
  byId("filter").form.addEventListener("submit", (event) => event.preventDefault());

  // ---- the rest

  for (const [id, names] of Object.entries({
    "epoch-figure": ["epochs"], label: ["pr"], "sweep-figure": ["sweep"], "seed-figure": ["seeds"],
  })) byId(id)?.addEventListener("change", () => drawAll(names));

  // A link to a run's commands opens them.
  const open = () => {
    const details = location.hash && byId(location.hash.slice(1));
    if (details instanceof HTMLDetailsElement) details.open = true;
  };
  addEventListener("hashchange", open);
  body.addEventListener("click", ({ target }) => target.matches("a") && setTimeout(open));

  byId("scriptless").remove();
  filter();
  initial.forEach((run, place) => {
    places[place] = run;
    box(run).checked = true;
  });
  for (const line of lines) if (!initial.includes(Number(line.dataset.run))) line.querySelector("input").checked = false;
  chooseAgain();
  open();
  // So that others can wait for the charts.
  document.documentElement.dataset.drawn = "";
  Promise.all(drawing).then(() => { document.documentElement.dataset.drawn = "all"; });
})();
