"use strict";
// Everything that the server sends is put into the page as text, never as markup.
const byId = (id) => document.getElementById(id);
const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
};
const percent = (score) => `${(100 * score).toFixed(1)} %`;
let model = null;

async function ask(path, options) {
  const response = await fetch(path, options);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

async function describe() {
  model = await ask("info");
  byId("model").textContent = model.model;
  document.title = `${model.model}: Reprise`;
  const [first, second] = model.text_columns;
  if (second !== undefined) {
    byId("first-label").textContent = `First text (${first})`;
    byId("second-label").textContent = `Second text (${second})`;
    byId("second").required = true;
    byId("second-part").hidden = false;
  }
  const { metric, value, ci95, split, num_examples: examples } = model.evaluation;
  const interval = ci95 ? ` (95 % interval ${ci95[0].toFixed(3)} – ${ci95[1].toFixed(3)})` : "";
  const judged = metric ? `: ${metric} ${value.toFixed(3)}${interval} on ${examples} examples of the ${split} split` : "";
  byId("about").textContent = `${model.task}, ${model.precision}${judged}.`;
}

function showLabels(answer) {
  const list = element("ol", "", "labels");
  const several = answer.some((each) => "predicted" in each);
  answer.forEach((each, index) => {
    const chosen = several ? each.predicted : index === 0;
    const item = element("li", "", chosen ? "chosen" : "");
    item.append(element("span", several && chosen ? `${each.label} ✓` : each.label));
    item.append(element("span", percent(each.score), "number"));
    const bar = element("span", "", "bar");
    bar.style.setProperty("--share", each.score);
    item.append(bar);
    list.append(item);
  });
  return [list];
}

function showEntities(text, answer) {
  // Python counts characters, JavaScript halves of them.
  const characters = Array.from(text);
  const shown = element("p", "", "text");
  let done = 0;
  for (const each of answer) {
    shown.append(characters.slice(done, each.start).join(""));
    const mark = element("mark", characters.slice(each.start, each.end).join(""));
    mark.style.setProperty("--color", `var(--run-${model.labels.indexOf(each.label) % 8})`);
    mark.append(element("small", `${each.label} ${percent(each.score)}`));
    shown.append(mark);
    done = each.end;
  }
  shown.append(characters.slice(done).join(""));
  return [shown, element("p", answer.length ? "" : "No entity was found.", "hint")];
}

function show(text, row) {
  if (model.labels.length === 0) return [element("p", String(row[0].value), "value")];
  if (model.entities) return showEntities(text, row);
  return showLabels(row);
}

async function predict() {
  if (byId("send").getAttribute("aria-disabled") === "true" || !byId("form").reportValidity()) return;
  byId("send").setAttribute("aria-disabled", "true");
  const first = byId("first").value;
  const row = model && model.text_columns.length === 2 ? [first, byId("second").value] : [first];
  try {
    if (!model) await describe();
    const body = JSON.stringify({ inputs: [row] });
    const [answer] = await ask("predict", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    byId("result").replaceChildren(...show(first, answer));
  } catch (error) {
    byId("result").replaceChildren(element("p", `No answer: ${error.message}`, "warning"));
  } finally {
    byId("send").removeAttribute("aria-disabled");
  }
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  predict();
});
byId("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    predict();
  }
});
describe().catch((error) => {
  byId("result").replaceChildren(element("p", `The model cannot be asked: ${error.message}`, "warning"));
});
