"use strict";
// Rows of the table sort, filter and open. A video's details are read and drawn when they come into view.
(() => {
  const el = (id) => document.getElementById(id);
  const rows = JSON.parse(el("rows").textContent); // [values..., searched text, reasons' codes]
  const limits = JSON.parse(el("limits").textContent);
  const body = el("table").tBodies[0];
  const lines = Array.from(body.rows);
  const heads = Array.from(el("table").tHead.rows[0].cells);
  const text = el("text"), status = el("status"), reason = el("reason"), all = el("all");
  let order = lines.map((_, i) => i), sorted = -1, down = false;

  const { LEFT, RIGHT, make, svg, caption, band, phases, line } = plot;

  // ---- sorting and filtering
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  function sort(column) {
    down = sorted === column ? !down : typeof rows[0]?.v[column] === "number" && column > 2 ? true : false;
    sorted = column;
    const known = (v) => v !== null && v !== "";
    order = lines.map((_, i) => i).sort((a, b) => {
      const x = rows[a].v[column], y = rows[b].v[column];
      if (known(x) !== known(y)) return known(x) ? -1 : 1; // what is unknown stays last
      const way = typeof x === "number" && typeof y === "number" ? x - y : compare(String(x), String(y));
      return (down ? -way : way) || a - b;
    });
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending"));
    place();
  }
  function place() {
    const piece = document.createDocumentFragment();
    for (const i of order) {
      piece.append(lines[i]);
      if (lines[i].opened) piece.append(lines[i].opened);
    }
    body.append(piece);
  }
  function fits(i) {
    const row = rows[i];
    if (status.value && row.s !== status.value) return false;
    if (reason.value === "*" ? !row.r.length : reason.value === "-" ? row.r.length || !row.u :
        reason.value && !row.r.includes(reason.value)) return false;
    return text.value.toLowerCase().split(/\s+/).every((word) => row.t.includes(word));
  }
  function filter() {
    let shown = 0;
    lines.forEach((line, i) => {
      const fit = fits(i);
      shown += fit;
      line.hidden = !fit;
      if (line.opened) line.opened.hidden = !fit;
    });
    el("none").hidden = shown > 0;
    el("count").textContent = shown === lines.length ? `${shown} videos` : `${shown} of ${lines.length} videos`;
  }

  // ---- details
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      fill(entry.target);
    }
  }, { rootMargin: "600px" });

  function toggle(line, open) {
    const button = line.querySelector(".open");
    button.setAttribute("aria-expanded", open);
    if (!open) {
      if (line.opened) { line.opened.remove(); line.opened = null; button.removeAttribute("aria-controls"); }
      return;
    }
    if (line.opened) return;
    const i = Number(line.dataset.row);
    const panel = make("div", { class: "panel", id: "p" + i, role: "region", "aria-label": "Details of " + rows[i].v[0] });
    panel.row = i;
    line.opened = make("tr", { class: "details" }, make("td", { colspan: heads.length }, panel));
    line.opened.hidden = line.hidden;
    button.setAttribute("aria-controls", "p" + i);
    line.after(line.opened);
    watcher.observe(panel);
  }

  function fill(panel) {
    const row = rows[panel.row], d = JSON.parse(el("d" + panel.row).textContent);
    panel.style.width = Math.max(240, document.querySelector(".scroll").clientWidth - (innerWidth <= 560 ? 8 : 20)) + "px";
    panel.textContent = "";
    panel.append(make("p", { class: "small" }, row.f));
    if (row.m) panel.append(make("p", {}, row.m));
    if (d.why?.length) {
      const list = make("ul", { class: "why" });
      for (const [, why] of d.why) list.append(make("li", {}, why));
      panel.append(make("h4", {}, "Worth a look because"), list);
    } else if (row.u) panel.append(make("p", { class: "small" }, "No issues found."));
    if (d.marks) {
      const list = make("ul", { class: "marks" });
      for (const mark of d.marks) list.append(make("li", {}, mark));
      panel.append(make("h4", {}, "Left out by marks"), list);
    }
    panel.append(make("p", { class: "small" }, row.d));
    if (d.strip) panel.append(strip(d, row));
    if (d.frames) panel.append(bar(d, panel));
    if (d.smooth) panel.append(lips(d));
    if (d.smile) panel.append(smile(d));
    if (d.pose) panel.append(pose(d));
    for (const figure of panel.querySelectorAll(".plot")) figure.draw?.();
  }

  function strip(d, row) {
    const times = make("figcaption", { class: "times" });
    for (const [t, seen] of d.shown) {
      times.append(make("span", { class: seen ? "" : "filled" }, t.toFixed(2) + " s" + (seen ? "" : " interpolated")));
    }
    const image = make("img", { src: d.strip, alt: `${d.shown.length} warped faces of ${row.v[0]}, evenly spaced in time` });
    return make("figure", { class: "strip" }, image, times);
  }

  // A figure that draws itself to the width it has.
  function figure(caption, height, label, draw) {
    const node = make("figure", { class: "plot" }, caption);
    node.draw = () => {
      const width = Math.max(200, node.clientWidth);
      const old = node.querySelector("svg");
      const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
      draw(picture, width);
      if (old) old.replaceWith(picture); else caption.after(picture);
    };
    return node;
  }
  function bar(d) {
    const total = d.frames.reduce((sum, run) => sum + run[1], 0);
    const count = [0, 1, 2, 3].map((k) => d.frames.reduce((sum, [state, n]) => sum + (state === k ? n : 0), 0));
    const names = ["not kept", "kept", "interpolated", "left out"].slice(0, count[3] ? 4 : 3);
    const label = "Frames of the file: " + names.map((name, k) => `${count[k]} ${name}`).join(", ");
    return figure(caption("Frames of the file", [1, 2, 3, 0].filter((k) => count[k]).map((k) => [`key k${k}`, `${count[k]} ${names[k]}`])), 14, label, (picture, width) => {
      let x = 0;
      for (const [state, n] of d.frames) {
        const w = n / total * width;
        picture.append(svg("rect", { class: "s" + state, x, y: 2, width: Math.max(w, state === 2 ? 1.5 : 0), height: 10 }));
        x += w;
      }
    });
  }

  function axes(picture, width, height, d, low, high, digits) {
    const [x, y] = plot.axes(picture, width, height, d.t[d.t.length - 1] || 1, low, high, digits);
    const wide = (a, b) => [x(a) - 1, Math.max(x(a) + 1, x(b) + 1)];
    for (const [a, b] of d.cut || []) band(picture, "cut", ...wide(a, b), height);
    for (const [a, b] of d.gaps) band(picture, "s2", ...wide(a, b), height, true);
    return [x, y];
  }
  const gaps = (d) => [...(d.gaps.length ? [["key k2", "interpolated"]] : []), ...(d.cut?.length ? [["key k3", "left out"]] : [])];

  function lips(d) {
    const what = d.measure === "disgust" ? "Nose and upper lip" : "Lip corners";
    const [low, high] = plot.span(d.raw.concat(d.smooth), .02);
    const node = figure(caption(what + ", mouth widths", [["mark raw", "as tracked"], ["mark", "smoothed"], ...gaps(d)]), 170, what + ": " + d.said, (picture, width) => {
      const [x, y] = axes(picture, width, 170, d, low, high, 2);
      phases(picture, d.phases, x, 170);
      line(picture, d.raw, d.t, x, y, "raw");
      line(picture, d.smooth, d.t, x, y, "");
    });
    node.append(make("p", { class: "small" }, d.said));
    return node;
  }
  function smile(d) {
    const most = d.smile.map((values) => Math.max(0, ...values.filter((v) => v !== null)).toFixed(2));
    const label = `Blendshapes: mouthSmileLeft up to ${most[0]}, mouthSmileRight up to ${most[1]}`;
    return figure(caption("Blendshapes", [["mark", "mouthSmileLeft"], ["mark b", "mouthSmileRight"], ...gaps(d)]), 110, label, (picture, width) => {
      const [x, y] = axes(picture, width, 110, d, 0, 1, 1);
      d.smile.forEach((values, k) => line(picture, values, d.t, x, y, ["", "b"][k]));
    });
  }
  function pose(d) {
    const names = ["yaw", "pitch", "roll"];
    if (d.pose.flat().every((v) => v === null)) return "";
    const most = plot.most(d.pose.flat());
    const span = names.map((name, k) => { const v = d.pose[k].filter((u) => u !== null); return v.length ? `${name} ${Math.min(...v).toFixed(0)} to ${Math.max(...v).toFixed(0)}` : ""; }).filter(Boolean).join(", ");
    return figure(caption("Head pose, degrees", [["mark", "yaw"], ["mark b", "pitch"], ["mark c", "roll"], ...gaps(d)]), 140, "Head pose in degrees: " + span, (picture, width) => {
      const [x, y] = axes(picture, width, 140, d, -most, most, 0);
      for (const limit of [-limits.yaw, limits.yaw]) if (Math.abs(limit) <= most) {
        picture.append(svg("line", { class: "limit", x1: LEFT, x2: width - RIGHT, y1: y(limit), y2: y(limit) }));
      }
      d.pose.forEach((values, k) => line(picture, values, d.t, x, y, ["", "b", "c"][k]));
    });
  }

  // ---- what people do
  heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => sort(i)));
  body.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (button) toggle(button.closest("tr"), button.getAttribute("aria-expanded") !== "true");
  });
  all.addEventListener("click", () => {
    const open = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", open);
    all.textContent = open ? "Close all" : "Open all";
    for (const i of order) if (!lines[i].hidden) toggle(lines[i], open);
  });
  let waiting = 0;
  text.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
  status.addEventListener("change", filter);
  reason.addEventListener("change", filter);
  el("filter").addEventListener("submit", (event) => event.preventDefault());
  el("filter").addEventListener("reset", () => setTimeout(filter));
  for (const link of document.querySelectorAll("[data-status], [data-reason]")) link.addEventListener("click", () => {
    el("filter").reset();
    setTimeout(() => {
      status.value = link.dataset.status || "";
      reason.value = link.dataset.reason || "";
      filter();
      el("videos").scrollIntoView();
      (link.dataset.status ? status : reason).focus({ preventScroll: true });
    });
  });
  let resized = 0;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => {
      for (const panel of document.querySelectorAll(".panel")) if (panel.childElementCount) fill(panel);
    }, 150);
  });
  el("filter").hidden = false;
  filter();
})();
