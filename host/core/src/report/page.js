"use strict";

const zooms = { timeline: [1, 2, 4, 8, 16, 32], graph: [0.35, 0.5, 0.7, 1, 1.4, 2] };

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function zoomTools(place) {
  const what = place.dataset.zoom;
  const scroll = document.querySelector(".scroll." + what);
  if (!scroll) return;
  const steps = zooms[what];
  const svg = scroll.querySelector("svg");
  const natural = svg && what === "graph" ? svg.viewBox.baseVal.width : 0;
  const start = what === "graph" ? steps.indexOf(1) : 0;
  let at = start;
  const show = () => {
    const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / scroll.scrollWidth;
    if (natural) {
      svg.style.maxWidth = at === start ? "" : "none";
      svg.style.width = at === start ? "" : natural * steps[at] + "px";
      svg.style.height = at === start ? "" : "auto";
    } else if (at === start) {
      scroll.style.removeProperty("--zoom");
    } else {
      scroll.style.setProperty("--zoom", steps[at]);
    }
    scroll.scrollLeft = middle * scroll.scrollWidth - scroll.clientWidth / 2;
  };
  const go = (to) => { at = Math.min(Math.max(to, 0), steps.length - 1); show(); };
  place.append(
    button("−", "smaller", () => go(at - 1)),
    button("+", "larger", () => go(at + 1)),
    button("fit", "to the page's width", () => go(start)),
  );
  if (what === "timeline") {
    const all = () => Array.from(scroll.querySelectorAll("details"));
    place.append(button("modules", "show or hide all modules", () => {
      const open = all().some((one) => !one.open);
      all().forEach((one) => { one.open = open; });
    }));
  }
}

function sortTable(table) {
  const body = table.tBodies[0];
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const text = head.textContent;
    const sort = () => {
      const falling = head.getAttribute("aria-sort") === "ascending"
        || (head.classList.contains("number") && head.getAttribute("aria-sort") !== "descending");
      Array.from(table.tHead.rows[0].cells).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        const value = Number.parseFloat(cell.dataset.value);
        return cell.dataset.value === undefined ? cell.textContent.trim() : Number.isNaN(value) ? -1 : value;
      };
      const compare = (one, other) => typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
      const rows = Array.from(body.rows).map((row) => [key(row), row]);
      rows.sort((one, other) => compare(one[0], other[0]) * (falling ? -1 : 1));
      body.append(...rows.map((row) => row[1]));
    };
    head.textContent = "";
    head.append(button(text, "sort by " + text, sort));
  });
}

function hints() {
  const hint = document.createElement("div");
  hint.className = "hover";
  hint.hidden = true;
  document.body.append(hint);
  const place = (event) => {
    const left = Math.min(event.clientX + 12, window.innerWidth - hint.offsetWidth - 8);
    const below = event.clientY + 16;
    const top = below + hint.offsetHeight > window.innerHeight ? event.clientY - hint.offsetHeight - 10 : below;
    hint.style.left = Math.max(left, 4) + "px";
    hint.style.top = top + "px";
  };
  document.querySelectorAll(".bar[title], .items li[title]").forEach((one) => {
    const text = one.title;
    one.removeAttribute("title");
    one.setAttribute("aria-label", text);
    one.addEventListener("pointerenter", (event) => { hint.textContent = text; hint.hidden = false; place(event); });
    one.addEventListener("pointermove", place);
    one.addEventListener("pointerleave", () => { hint.hidden = true; });
  });
}

function localTimes() {
  document.querySelectorAll("time[datetime]").forEach((one) => {
    one.title = new Date(one.dateTime).toLocaleString() + " where you are";
  });
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

document.querySelectorAll("[data-zoom]").forEach(zoomTools);
document.querySelectorAll("table.sortable").forEach(sortTable);
hints();
localTimes();
openTarget();
window.addEventListener("hashchange", openTarget);
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
});
