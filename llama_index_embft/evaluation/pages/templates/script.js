"use strict";
// The table of queries. Every text goes into the page with textContent, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50, PREVIEW = 500, FIRST_HITS = 3;
  const body = document.querySelector("#table tbody");
  const status = document.getElementById("status"), more = document.getElementById("more");
  const search = document.getElementById("search"), picker = document.getElementById("system");
  const state = { system: 1, filter: "all", words: [], sort: "difference", down: true, shown: PAGE };

  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const rankText = (rank) => (rank ? String(rank) : "–");

  // --- rows -------------------------------------------------------------------------------------------------------
  const reciprocal = (rank) => (rank ? 1 / rank : 0);
  const kindOf = (row) => (row.difference > 1e-9 ? "better" : row.difference < -1e-9 ? "worse" : "same");  // as wins and losses are counted
  const rows = () => data.queries.map((query) => {
    const [baseScore, baseRank] = query.runs[0], [tunedScore, tunedRank] = query.runs[state.system];
    const difference = tunedScore - baseScore;
    const order = Math.abs(difference) > 1e-9 ? difference : 1e-6 * (reciprocal(tunedRank) - reciprocal(baseRank));
    const row = { query, text: query.text, baseRank, tunedRank, difference, order, haystack: (query.text + "\n" + query.id).toLowerCase() };
    row.kind = kindOf(row);
    row.missed = !baseRank && !tunedRank;
    return row;
  });
  let all = rows();

  const visible = () => all.filter((row) =>
    (state.filter === "all" || (state.filter === "missed" ? row.missed : row.kind === state.filter)) &&
    state.words.every((word) => row.haystack.includes(word)));

  const sorted = (list) => {
    const last = 1e9, sign = state.down ? -1 : 1;
    const value = { text: (r) => r.text, baseRank: (r) => r.baseRank || last, tunedRank: (r) => r.tunedRank || last, difference: (r) => r.order }[state.sort];
    const compare = state.sort === "text" ? (a, b) => a.text.localeCompare(b.text) : (a, b) => value(a) - value(b);
    return list.slice().sort((a, b) => sign * compare(a, b) || (a.query.id < b.query.id ? -1 : 1));
  };

  // --- highlighting -----------------------------------------------------------------------------------------------
  const STOP = new Set("the a an of in on at to for and or is are was were be by with as from that this it its what which who when where why how does do did can has have their they there than then into about not".split(" "));
  const CJK = /[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/;
  const wanted = (text) => {
    const words = new Set();
    for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) || []) {
      if (CJK.test(word)) for (let i = 0; i + 1 < word.length; i++) words.add(word.slice(i, i + 2));
      else if (word.length > 2 && !STOP.has(word)) words.add(word);
    }
    return words;
  };
  const fill = (node, text, words) => {
    node.textContent = "";
    let plain = "";
    const flush = () => { if (plain) node.append(plain); plain = ""; };
    for (const [word] of text.matchAll(/[\p{L}\p{N}]+|[^\p{L}\p{N}]+/gu)) {
      const low = word.toLowerCase();
      if (CJK.test(low)) {
        for (let i = 0; i < word.length; i++) {
          const hit = words.has(low.slice(i, i + 2)) || (i > 0 && words.has(low.slice(i - 1, i + 1)));
          if (hit) { flush(); node.append(element("mark", "", word[i])); } else plain += word[i];
        }
      } else if (words.has(low)) { flush(); node.append(element("mark", "", word)); }
      else plain += word;
    }
    flush();
  };

  // --- one query's hits ---------------------------------------------------------------------------------------------
  const textBlock = (parent, text, words) => {
    if (text === null) return;
    const paragraph = element("p");
    paragraph.dir = "auto";
    paragraph.tabIndex = -1;
    const cut = text.length > PREVIEW;
    fill(paragraph, cut ? text.slice(0, PREVIEW) + " …" : text, words);
    parent.append(paragraph);
    if (!cut) return;
    const button = element("button", "expand", `Show all ${text.length.toLocaleString("en")} characters`);
    button.type = "button";
    button.addEventListener("click", () => { fill(paragraph, text, words); button.remove(); paragraph.focus(); });
    parent.append(button);
  };
  const hitCard = (documentRow, score, rank, grade, words) => {
    const [id, text] = data.documents[documentRow];
    const card = element("li", grade ? "hit right" : "hit"), head = element("div", "head");
    if (rank) head.append(element("span", "", `${rank}.`));
    if (grade) head.append(element("span", "tag", grade > 1 ? `✓ relevant (${grade})` : "✓ relevant"));
    const name = element("span", "id", id);
    name.title = id;
    head.append(name);
    if (score !== null) head.append(element("span", "score", score.toFixed(3)));
    card.append(head);
    textBlock(card, text, words);
    return card;
  };
  const details = (query) => {
    const cell = element("td"), words = wanted(query.text), grades = new Map(query.relevant);
    cell.colSpan = 4;
    const meta = element("p", "meta", `query ${query.id}, about ${query.source}`);
    const sides = element("div", "sides");
    for (const [run, when] of [[0, "before"], [state.system, "after"]]) {
      const side = element("div"), list = element("ol", "hits"), hits = query.runs[run][2];
      const title = element("h3", "", `${data.labels[run]} (${when})`);
      title.dir = "auto";
      const cards = hits.map(([row, score], i) => () => hitCard(row, score, i + 1, grades.get(row) || 0, words));
      const rest = [];
      hits.forEach(([row], i) => (i < FIRST_HITS || grades.has(row) ? list.append(cards[i]()) : rest.push(i)));
      if (!hits.length) list.append(element("li", "hit", "no hit"));
      side.append(title, list);
      if (rest.length) {
        const button = element("button", "expand", `Show all ${hits.length} hits`);
        button.type = "button";
        button.addEventListener("click", () => { list.replaceChildren(...cards.map((card) => card())); button.remove(); });
        side.append(button);
      }
      sides.append(side);
    }
    cell.append(meta, sides);
    const found = new Set(query.runs[0][2].concat(query.runs[state.system][2]).map(([row]) => row));
    const missing = query.relevant.filter(([row]) => !found.has(row));
    if (missing.length) {
      const box = element("div", "missing"), list = element("ul", "hits");
      box.append(element("p", "", "Relevant, and not among the hits shown:"));
      for (const [row, grade] of missing) list.append(hitCard(row, null, 0, grade, words));
      box.append(list);
      cell.append(box);
    }
    return cell;
  };

  // --- the table ------------------------------------------------------------------------------------------------------
  const toggle = (button, line, row) => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) { line.nextSibling.remove(); return; }
    const detail = element("tr", "detail");
    detail.append(details(row.query));
    line.after(detail);
  };
  const lineOf = (row) => {
    const line = element("tr"), head = element("td", "q"), button = element("button", "row-toggle");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    const text = element("span", "", row.text);
    text.dir = "auto";
    button.append(text);
    button.addEventListener("click", () => toggle(button, line, row));
    head.append(button);
    const moved = row.kind === "better" ? "num up" : row.kind === "worse" ? "num down" : "num";
    const sign = row.difference > 1e-9 ? "+" : "";
    const change = Math.abs(row.difference) > 1e-9 ? sign + row.difference.toFixed(3) : "0";
    const figure = (className, label, text) => {
      const cell = element("td", className, text);
      cell.dataset.label = label;
      return cell;
    };
    line.append(head, figure("num", "before", rankText(row.baseRank)), figure("num", "after", rankText(row.tunedRank)), figure(moved, "change", change));
    return line;
  };
  const render = () => {
    const found = sorted(visible());
    const part = found.slice(0, state.shown);
    body.replaceChildren(...part.map(lineOf));
    more.hidden = found.length <= part.length;
    more.textContent = `Show more (${(found.length - part.length).toLocaleString("en")} left)`;
    status.textContent = found.length ? `${part.length.toLocaleString("en")} of ${found.length.toLocaleString("en")} queries shown` : "No query matches.";
    for (const button of document.querySelectorAll("[data-sort]")) {
      const active = button.dataset.sort === state.sort;
      button.closest("th").setAttribute("aria-sort", active ? (state.down ? "descending" : "ascending") : "none");
    }
  };
  const count = () => {
    for (const label of document.querySelectorAll("[data-count]")) {
      const name = label.dataset.count;
      const n = all.filter((row) => name === "all" || (name === "missed" ? row.missed : row.kind === name)).length;
      label.textContent = n.toLocaleString("en");
    }
  };
  const restart = (change) => { Object.assign(state, change, { shown: PAGE }); render(); };

  search.addEventListener("input", () => restart({ words: search.value.toLowerCase().split(/\s+/).filter(Boolean) }));
  for (const radio of document.querySelectorAll("[name=filter]")) radio.addEventListener("change", () => restart({ filter: radio.value }));
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      const sort = button.dataset.sort;
      restart({ sort, down: state.sort === sort ? !state.down : sort === "difference" });
    });
  }
  if (picker) picker.addEventListener("change", () => { state.system = Number(picker.value); all = rows(); count(); restart({}); });
  more.addEventListener("click", () => { state.shown += PAGE; render(); });
  count();
  render();
})();
