"use strict";
// What a page gains by scripts: right ages, news without a reload, sorting and filtering of what stands on it, a log that goes
// on. Everything it says is there without them.
(() => {
const root = document.documentElement, served = Number(root.dataset.served) || 0;
const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const span = seconds => {
  let left = Math.round(seconds);
  const parts = [];
  for (const [unit, size] of units) {
    const number = Math.floor(left / size);
    left -= number * size;
    if (number) parts.push(number + "\u00a0" + unit); else if (parts.length) break;
  }
  return parts.slice(0, 2).join(" ") || "0\u00a0s";
};
const ages = () => {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const distance = (now - Date.parse(time.dateTime)) / 1000;
    const text = distance >= 0 ? span(distance) + " ago" : "in " + span(-distance);
    if (time.textContent !== text) time.textContent = text;
  }
  const age = document.querySelector("[data-age]");
  if (!age) return;
  const old = Math.max(0, (now - Date.parse(age.dataset.age)) / 1000), stale = old > (served ? 120 : 300);
  age.textContent = stale ? span(old) + " old: what came after is not here" : span(old) + " ago";
  age.parentNode.classList.toggle("old", stale);
};
const copyable = () => {
  if (!navigator.clipboard) return;
  for (const code of document.querySelectorAll("code.cmd:not([data-copy])")) {
    code.dataset.copy = "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.setAttribute("aria-label", "Copy " + code.textContent);
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = "copied"; }
      catch { button.textContent = "not copied"; }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
    code.after(button);
  }
};
// Sorting and filtering of a list that is whole on the page; the server has pages for the longer ones.
const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
const order = (a, b) => {
  const [x, y] = [parseFloat(a), parseFloat(b)];
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b);
  return x - y;
};
const lists = () => {
  for (const table of document.querySelectorAll("table[data-sort]:not([data-ready])")) {
    table.dataset.ready = "";
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => order(value(a, column), value(b, column)) * (down ? -1 : 1));
        body.append(...rows);
      });
    });
    const label = document.createElement("label"), input = document.createElement("input");
    label.textContent = "Show only rows that contain";
    input.type = "search";
    input.id = "filter-" + table.dataset.sort;
    label.append(input);
    const form = document.createElement("div");
    form.className = "filter";
    form.append(label);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    table.closest(".scroll").before(form);
  }
};
// What a chart shows where it is pointed at, in place of the note above it.
const telling = () => {
  for (const chart of document.querySelectorAll(".segments:not([data-ready])")) {
    chart.dataset.ready = "";
    const note = chart.parentNode.querySelector(".head .note"), start = Date.parse(chart.dataset.start);
    if (!note || !chart.dataset.marks) continue;
    const words = chart.dataset.words.split("|"), usual = note.textContent, minutes = 60000;
    const zoned = zone => new Intl.DateTimeFormat("en-US",
      {timeZone: zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short"});
    const [local, utc] = [zoned(chart.dataset.zone), zoned("UTC")];
    const when = minute => local.format(start + minute * minutes) +
      (chart.dataset.zone === "UTC" ? "" : " = " + utc.format(start + minute * minutes));
    const beats = chart.classList.contains("beat");
    const marks = chart.dataset.marks.split(beats ? " " : ",").map(mark => mark.split(beats ? "*" : " ").map(Number));
    const tell = minute => {
      if (!beats) {
        const distance = ([, from, length]) => Math.max(from / 60 - minute, minute - (from + length) / 60, 0);
        const nearest = marks.reduce((best, mark) => distance(mark) < distance(best) ? mark : best);
        if (distance(nearest) > 8) return [when(minute), 0];
        const [cycle, from, length, job, state] = nearest;
        return [`${words[job]} cycle ${cycle} ${words[state]}, ${when(from / 60)}, ${span(length)}`, cycle];
      }
      let passed = 0;
      for (const [word, length] of marks) {
        passed += length;
        if (minute < passed) return [`${when(Math.floor(minute))}: ${words[word]}`, 0];
      }
      return [usual, 0];
    };
    const at = event => {
      const parts = [...chart.querySelectorAll(":scope > svg")];
      const number = parts.findIndex(part => part.contains(event.target));
      if (number < 0) return null;
      const box = parts[number].getBoundingClientRect(), length = Number(parts[number].dataset.minutes);
      return number * 360 + Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999) * length;
    };
    chart.addEventListener("pointermove", event => {
      const minute = at(event);
      if (minute === null) return;
      const [text, cycle] = tell(minute);
      note.textContent = text;
      chart.classList.toggle("leads", Boolean(served && cycle));
    });
    chart.addEventListener("pointerleave", () => { note.textContent = usual; });
    if (served && !beats) chart.addEventListener("click", event => {
      const minute = at(event), cycle = minute === null ? 0 : tell(minute)[1];
      if (cycle) location.href = "/cycles/" + cycle;
    });
  }
};
// News: the page is fetched anew and its content swapped, unless somebody is at work in it.
let misses = 0;
const usual = select => [...select.options].find(one => one.defaultSelected) ?? select.options[0];
const changed = field => field.options ? !usual(field).selected : field.value !== field.defaultValue;
const busy = () => {
  const at = document.activeElement;
  const typing = at && /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName);
  const asking = [...document.querySelectorAll("main form select, main form input")].some(changed);
  return document.hidden || typing || asking || !getSelection().isCollapsed || document.querySelector("[data-following]");
};
const say = text => { document.getElementById("news").textContent = text; };
const swap = fresh => {
  const main = document.getElementById("main"), next = fresh.getElementById("main");
  if (!next) return;
  const open = new Map([...main.querySelectorAll("details[id]")].map(one => [one.id, one.open]));
  const at = document.activeElement, keys = main.contains(at) ? path(at, main) : null;
  const scrolled = [...main.querySelectorAll("pre, .scroll")].map(one => [one.scrollLeft, one.scrollTop]);
  const verdict = main.querySelector("[data-verdict]")?.dataset.verdict;
  main.replaceChildren(...next.childNodes);
  for (const one of main.querySelectorAll("details[id]")) if (open.has(one.id)) one.open = open.get(one.id);
  main.querySelectorAll("pre, .scroll").forEach((one, number) => {
    if (scrolled[number]) [one.scrollLeft, one.scrollTop] = scrolled[number];
  });
  document.getElementById("asof").replaceWith(fresh.getElementById("asof"));
  document.title = fresh.title;
  const icon = fresh.querySelector("link[rel=icon]");
  if (icon) document.querySelector("link[rel=icon]").href = icon.href;
  enhance();
  if (keys) find(keys, main)?.focus({preventScroll: true});
  const now = main.querySelector("[data-verdict]")?.dataset.verdict;
  if (now && now !== verdict) say("The verdict is now " + now + ", it was " + verdict + ".");
};
const reachable = "a[href], button, input, select, summary, [tabindex]";
const path = (node, main) => {
  const box = node.closest("[id]"), within = box && main.contains(box) ? box : main;
  return [within.id, [...within.querySelectorAll(reachable)].indexOf(node)];
};
const find = ([id, number], main) => {
  const box = document.getElementById(id) || main;
  return number < 0 ? box : box.querySelectorAll(reachable)[number];
};
const look = async () => {
  if (busy()) return;
  try {
    const answer = await fetch(location.href, {headers: {accept: "text/html"}, cache: "no-store"});
    if (!answer.ok) throw new Error("status " + answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (misses >= 3) say("The server answers again.");
    misses = 0;
    if (!busy()) swap(fresh);
  } catch (error) {
    misses += 1;
    if (misses === 3) say("The server does not answer: " + error.message + ". What is shown gets old.");
  }
};
// A running cycle's output, line by line as it comes.
const LINES = 5000, CHARACTERS = 1000000;
const shown = text => text.replace(/\r\n/g, "\n")
  .replace(/\x1b\[[0-9:;<=>?]*[ -\/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g, "")
  .replace(/[\0-\x08\x0b-\x1f]/g, sign => String.fromCharCode(0x2400 + sign.charCodeAt(0)))
  .replace(/[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    sign => "\u27e8U+" + sign.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9");
const follow = () => {
  for (const pre of document.querySelectorAll("pre[data-follow]:not([data-ready])")) {
    pre.dataset.ready = "";
    const button = document.createElement("button"), status = document.createElement("span");
    button.type = "button";
    button.textContent = "Follow";
    button.className = "follow";
    status.className = "note";
    status.setAttribute("role", "status");
    const bar = document.createElement("p");
    bar.append(button, " ", status);
    pre.before(bar);
    let source = null;
    const stop = why => {
      source?.close();
      source = null;
      delete pre.dataset.following;
      button.textContent = "Follow";
      status.textContent = why;
    };
    button.addEventListener("click", () => {
      if (source) return stop("stopped");
      source = new EventSource(pre.dataset.follow);
      pre.dataset.following = "";
      pre.textContent = "";
      button.textContent = "Stop following";
      status.textContent = "following";
      let pending = "";
      const flush = () => {
        const bottom = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
        const lines = (pre.textContent + pending).slice(-CHARACTERS).split("\n");
        pre.textContent = lines.slice(-LINES).join("\n");
        pending = "";
        if (bottom) pre.scrollTop = pre.scrollHeight;
      };
      const add = text => {
        if (!pending) requestAnimationFrame(flush);
        pending = (pending + text).slice(-CHARACTERS);
      };
      source.addEventListener("open", () => { status.textContent = "following"; });
      source.addEventListener("log", event => add(shown(JSON.parse(event.data))));
      source.addEventListener("reset", () => { pre.textContent = pending = ""; });
      source.addEventListener("end", event => stop("the cycle has ended: " + JSON.parse(event.data).state.replace("_", " ")));
      source.addEventListener("error", () => {
        status.textContent = source?.readyState === EventSource.CLOSED ? "the server does not answer" : "connecting again";
      });
      return undefined;
    });
  }
};
const enhance = () => { telling(); copyable(); lists(); follow(); ages(); };
enhance();
setInterval(ages, 1000);
if (served) {
  setInterval(look, served * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
}
})();
