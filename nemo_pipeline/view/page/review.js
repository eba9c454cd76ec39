"use strict";
// Clips are looked at one at a time; what is decided is sent to the server, which writes it before it answers.
(() => {
  const el = (id) => document.getElementById(id);
  const facts = JSON.parse(el("facts").textContent);
  const clips = facts.videos, size = facts.size, BLOCK = 64, KEPT = 8;
  const { LEFT, RIGHT, make, svg, caption, band } = plot;
  let marks = facts.marks, shown = clips.slice(), current = null, at = 0, range = [null, null], playing = 0;
  let opened = 0, changed = 0; // how often a clip was opened, and how often the server answered with new marks
  let recent = []; // clips whose arrays are in memory, the last one first
  const done = []; // what was done here, for undo: [path that undoes it, mark]
  const heads = [[0, 16, 0], [17, 21, 0], [22, 26, 0], [27, 30, 0], [31, 35, 0], [36, 41, 1], [42, 47, 1], [48, 59, 1], [60, 67, 1]];

  const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));

  // ---- the server
  function fault(text) {
    el("fault").textContent = text;
    el("fault").hidden = !text;
  }
  async function ask(path, body) {
    let answer;
    try {
      answer = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    } catch {
      throw new Error("nemo review does not answer: it has ended. What was saved is in the file; start it again.");
    }
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `nemo review answers ${answer.status}.`);
    return answer;
  }

  // ---- marks
  const marksOf = (clip) => marks.filter((m) => m.video === clip.id || clip.names.includes(m.video));
  const covers = (m, frame) => (m.start === null || frame >= m.start) && (m.stop === null || frame <= m.stop);
  const whole = (m) => m.start === null && m.stop === null;
  const stretch = (m) => whole(m) ? "whole clip" : m.start === null ? `up to frame ${m.stop}` : m.stop === null ? `from frame ${m.start}` : m.start === m.stop ? `frame ${m.start}` : `frames ${m.start} to ${m.stop}`;
  const same = (a, b) => ["video", "start", "stop", "reason", "who", "when"].every((key) => a[key] === b[key]);

  // Changes are made one after the other: answers that overtook each other would bring back what was changed since.
  let changing = Promise.resolve();
  function change(path, mark, undoing) {
    const answered = changing.then(() => changeNow(path, mark, undoing));
    changing = answered.catch(() => {});
    return answered;
  }
  async function changeNow(path, mark, undoing) {
    const answer = await (await ask(path, mark)).json();
    marks = answer.marks;
    changed++;
    fault("");
    if (!undoing) done.push([path === "mark" ? "unmark" : "mark", answer.mark]);
    el("undo").disabled = !done.length;
    list(); showMarks(); go(at);
    return answer.mark;
  }
  async function undo() {
    const last = done.pop();
    if (!last) return;
    try {
      await change(last[0], last[1], true);
      const clip = clips.find((c) => c.id === last[1].video || c.names.includes(last[1].video));
      if (clip && clip !== current) await open(clip);
    } catch (error) { done.push(last); fault(`Not undone: ${error.message}`); }
  }

  // ---- the list
  function list() {
    const words = el("find").value.toLowerCase().split(/\s+/).filter(Boolean), kind = el("show").value;
    shown = clips.filter((clip) => {
      const marked = marksOf(clip).length > 0;
      if (clip !== current && (kind === "marked" ? !marked : kind === "unmarked" ? marked : kind === "unseen" && clip.seen)) return false;
      const text = `${clip.name} ${clip.names.join(" ")} ${clip.about}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const piece = document.createDocumentFragment();
    for (const clip of shown) {
      const own = marksOf(clip), out = own.some(whole);
      const tag = out ? "excluded" : own.length ? plural(own.length, "range") : "";
      const line = make("li", { role: "option", id: "c" + clip.row, "aria-selected": clip === current, class: (clip.seen ? "seen " : "") + (out ? "out" : "") },
        make("b", {}, clip.name), make("span", { class: "tag" }, tag), make("span", { class: "small" }, [clip.about, plural(clip.n, "frame")].filter(Boolean).join(" · ")));
      line.clip = clip;
      piece.append(line);
    }
    el("clips").replaceChildren(piece);
    if (current) el("clips").setAttribute("aria-activedescendant", "c" + current.row);
    document.getElementById("c" + current?.row)?.scrollIntoView({ block: "nearest" });
    el("nothing").hidden = shown.length > 0;
    const out = clips.filter((clip) => marksOf(clip).some(whole)).length, cut = clips.filter((clip) => marksOf(clip).length).length - out;
    el("count").textContent = `${plural(clips.length, "clip")}, ${out} excluded, ${cut} with ranges left out.`;
  }
  function step(way) {
    const next = shown[clamp(shown.indexOf(current) + way, 0, shown.length - 1)];
    if (next && next !== current) open(next);
  }

  // ---- a clip
  async function read(clip) {
    const before = changed;
    const [curves, points, now] = await Promise.all([
      ask(`video?row=${clip.row}`).then((a) => a.json()),
      ask(`points?row=${clip.row}`).then((a) => a.arrayBuffer()),
      ask("marks").then((a) => a.json()), // of others, who mark at the same time
    ]);
    Object.assign(clip, { curves, points: new Float32Array(points), blocks: [] });
    clip.box = box(clip);
    if (before === changed) marks = now; // else the answer to a change is the newer one
  }
  async function open(clip) {
    const turn = ++opened;
    stop();
    current = clip; at = 0; range = [null, null]; clip.seen = true;
    el("name").textContent = clip.name;
    el("about").textContent = clip.about;
    el("here").textContent = "reading";
    drawn = [];
    el("plots").replaceChildren(); // those of the clip before
    list();
    try {
      if (!clip.curves) await (clip.reading ??= read(clip).finally(() => { clip.reading = null; }));
    } catch (error) { if (turn === opened) fault(error.message); return; }
    if (turn !== opened) return; // another clip was chosen meanwhile, or this one again
    recent = [clip, ...recent.filter((other) => other !== clip)];
    for (const old of recent.splice(KEPT)) Object.assign(old, { curves: null, points: null, blocks: null, attention: null });
    const d = clip.curves;
    el("about").textContent = [clip.about, d.file, d.picture && `${d.picture} pixels`].filter(Boolean).join(" · ");
    el("why").replaceChildren(...d.why.map((text) => make("li", {}, text)));
    el("frame").max = clip.n - 1;
    list(); plots(); showMarks(); go(0);
    look(clip);
  }
  // A clip's attention, where a model was given: it takes a moment, and comes when it comes.
  async function look(clip) {
    if (!facts.model || clip.attention || clip.looking) return;
    clip.looking = true;
    try { clip.attention = await (await ask(`attention?row=${clip.row}`)).json(); } catch (error) { fault(error.message); }
    clip.looking = false;
    if (clip === current && clip.curves) { plots(); draw(); }
  }
  function go(to) {
    if (!current?.curves) return;
    at = clamp(Math.round(to), 0, current.n - 1);
    el("frame").value = at;
    const d = current.curves, own = marksOf(current).filter((m) => covers(m, d.frame[at]));
    el("frame").setAttribute("aria-valuetext", `frame ${d.frame[at]}`);
    const value = (v, unit) => v === null || v === undefined ? "" : `${v}${unit}`;
    const said = [`${(d.time[at] ?? 0).toFixed(2)} s`, d.pose.every((p) => p[at] !== null) ? `yaw ${value(d.pose[0][at], "°")}, pitch ${value(d.pose[1][at], "°")}, roll ${value(d.pose[2][at], "°")}` : "", d.tracked[at] ? "" : "interpolated"];
    el("here").replaceChildren(make("b", {}, `Frame ${d.frame[at]}`), ` (${at + 1} of ${current.n}), ${said.filter(Boolean).join(", ")}`, ...(own.length ? [" ", make("span", { class: "bad" }, `left out: ${own.map((m) => m.reason || "no reason").join("; ")}`)] : []));
    draw();
  }
  function showMarks() {
    if (!current) return;
    el("marks").replaceChildren(...marksOf(current).map((mark) => {
      const text = make("span", {}, `${stretch(mark)}: ${mark.reason || "no reason"}`, make("span", { class: "small" }, mark.who ? ` (${mark.who})` : ""));
      const button = make("button", { type: "button", "aria-label": `Remove the mark of ${stretch(mark)}` }, "Remove");
      button.addEventListener("click", () => change("unmark", mark).then(() => el("viewer").focus(), (error) => fault(error.message)));
      return make("li", {}, text, button);
    }));
    const frame = current.curves?.frame;
    const [a, b] = range;
    el("what").textContent = frame && (a !== null || b !== null) ? stretch(chosen()) : "clip";
    el("range").textContent = a === null && b === null ? "No range: X leaves out the whole clip." : `Chosen: ${stretch(chosen())}.`;
  }
  // The range as a mark's first and last frame; one that reaches the clip's end says so by its number all the same.
  function chosen() {
    const [a, b] = range;
    if (a === null && b === null) return { start: null, stop: null }; // also before the clip is read
    const frame = current.curves.frame;
    return { start: frame[a ?? 0], stop: frame[b ?? current.n - 1] };
  }
  function set(end) {
    if (!current?.curves) return;
    range[end] = at;
    if (range[0] !== null && range[1] !== null && range[0] > range[1]) range[1 - end] = null;
    showMarks(); draw();
  }

  // ---- choosing a reason
  function exclude() {
    if (!current) return;
    stop();
    el("chosen").textContent = `Exclude ${stretch(chosen()).replace(/^whole/, "the whole")} of ${current.name}`;
    el("unsaved").textContent = "";
    el("reason").value = "";
    el("choose").showModal();
    el("choose").querySelector("#reasons button").focus();
  }
  async function save(reason) {
    const clip = current, mark = { video: clip.id, ...chosen(), reason };
    try {
      await change("mark", mark);
      el("choose").close();
      if (clip === current) { range = [null, null]; showMarks(); draw(); }
      el("viewer").focus({ preventScroll: true });
    } catch (error) { el("unsaved").textContent = `Not saved: ${error.message}`; }
  }
  el("reasons").append(...facts.reasons.map((reason, i) => {
    const button = make("button", { type: "button" }, make("kbd", {}, String(i + 1)), " ", reason);
    button.addEventListener("click", () => save(reason));
    return make("li", {}, button);
  }));
  el("choose").addEventListener("keydown", (event) => {
    const digit = Number(event.key);
    if (event.target !== el("reason") && digit >= 1 && digit <= facts.reasons.length) { event.preventDefault(); save(facts.reasons[digit - 1]); }
  });
  el("choose").firstElementChild.addEventListener("submit", (event) => { event.preventDefault(); save(el("reason").value.trim()); });
  el("cancel").addEventListener("click", () => el("choose").close());

  // ---- pictures
  function faceAt(i) {
    const clip = current, block = Math.floor(i / BLOCK);
    const kept = clip.blocks[block];
    if (kept instanceof Uint8Array) return kept.subarray((i % BLOCK) * size * size, (i % BLOCK + 1) * size * size);
    if (!kept) {
      clip.blocks[block] = true; // asked for
      ask(`frames?row=${clip.row}&start=${block * BLOCK}&stop=${Math.min(clip.n, (block + 1) * BLOCK)}`).then((a) => a.arrayBuffer())
        .then((data) => { if (clip.blocks) clip.blocks[block] = new Uint8Array(data); if (clip === current) draw(); },
          (error) => { if (clip.blocks) clip.blocks[block] = null; fault(error.message); });
    }
    return null;
  }
  function heatAt(i) {
    const seen = current.attention;
    if (!seen?.maps || !el("with-heat").checked) return null;
    const m = seen.cells[0].length, map = seen.maps[i], half = new Float32Array(size * m), heat = new Float32Array(size * size);
    for (let y = 0; y < size; y++) for (let k = 0; k < m; k++) { let v = 0; for (let j = 0; j < m; j++) v += seen.cells[y][j] * map[j * m + k]; half[y * m + k] = v; }
    for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) { let v = 0; for (let k = 0; k < m; k++) v += half[y * m + k] * seen.cells[x][k]; heat[y * size + x] = v / seen.largest; }
    return heat;
  }
  function outline(context, xy, points, closed) {
    for (const [first, last, shut] of heads) {
      context.beginPath();
      for (let k = first; k <= last; k++) context.lineTo(...xy(points, k));
      if (shut && closed) context.closePath();
      context.stroke();
    }
    for (let k = 0; k < 68; k++) { const [x, y] = xy(points, k); context.beginPath(); context.arc(x, y, 2.2, 0, 7); context.fill(); }
  }
  const small = document.createElement("canvas");
  function drawFace() {
    const canvas = el("face"), face = faceAt(at);
    canvas.width = canvas.height = 640;
    const context = canvas.getContext("2d");
    if (!face) return;
    small.width = small.height = size;
    const image = new ImageData(size, size), heat = heatAt(at);
    for (let p = 0; p < size * size; p++) {
      const gray = face[p], h = heat && gray ? Math.min(1, heat[p]) : 0;
      image.data[4 * p] = gray + (255 - gray) * .75 * h;
      image.data[4 * p + 1] = gray * (1 - .55 * h) + 90 * .55 * h * h;
      image.data[4 * p + 2] = gray * (1 - .75 * h);
      image.data[4 * p + 3] = 255;
    }
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, 640, 640);
    if (el("with-points").checked) {
      context.strokeStyle = "rgba(80, 220, 255, .8)"; context.fillStyle = "#ffe14d"; context.lineWidth = 1.5;
      const k = 640 / size;
      outline(context, (shape, i) => [(shape[i][0] + .5) * k, (shape[i][1] + .5) * k], facts.shape, true);
    }
    canvas.setAttribute("aria-label", `Warped face, frame ${current.curves.frame[at]}`);
  }
  // The square around all points of a clip, source pixels: it holds still while the face moves.
  function box(clip) {
    let [a, b, c, d] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < clip.points.length; i += 2) if (Number.isFinite(clip.points[i]) && Number.isFinite(clip.points[i + 1])) {
      a = Math.min(a, clip.points[i]); c = Math.max(c, clip.points[i]);
      b = Math.min(b, clip.points[i + 1]); d = Math.max(d, clip.points[i + 1]);
    }
    if (a > c) return null;
    const side = Math.max(c - a, d - b, 1) * 1.08;
    return [(a + c - side) / 2, (b + d - side) / 2, side];
  }
  function drawPoints() {
    const canvas = el("points"), place = current.box;
    canvas.width = canvas.height = 640;
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; context.font = "22px sans-serif";
    if (!place) { context.fillText("no points", 24, 40); return; }
    const k = 640 / place[2], d = current.curves;
    context.strokeStyle = "#666"; context.lineWidth = 2; // the picture's edge
    context.strokeRect((-place[0]) * k, (-place[1]) * k, d.width * k, d.height * k);
    const mine = current.points.subarray(at * 136, (at + 1) * 136);
    context.strokeStyle = d.tracked[at] ? "#50dcff" : "#f0ac4d"; context.fillStyle = "#ffe14d";
    outline(context, (points, i) => [(points[2 * i] - place[0]) * k, (points[2 * i + 1] - place[1]) * k], mine, true);
  }

  // ---- plots, each with the cursor, the marks and the range
  let drawn = [];
  function figure(title, keys, height, low, high, digits, lines, phases) {
    const d = current.curves, node = make("figure", { class: "plot" });
    node.append(caption(title, keys));
    const picture = svg("svg", { height, role: "img", "aria-label": title });
    node.append(picture);
    node.render = () => {
      const width = Math.max(200, node.clientWidth), end = d.time[current.n - 1] || 1;
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.replaceChildren();
      const [when, y] = plot.axes(picture, width, height, end, low, high, digits), x = (i) => when(d.time[i]);
      plot.phases(picture, phases, x, height);
      const stripe = (css, test) => {
        for (let i = 0, from = -1; i <= current.n; i++) {
          const inside = i < current.n && test(i);
          if (inside && from < 0) from = i;
          if (!inside && from >= 0) {
            const a = (x(from) + x(Math.max(from - 1, 0))) / 2, b = (x(i - 1) + x(Math.min(i, current.n - 1))) / 2;
            band(picture, css, a, Math.max(a + 2, b), height, css === "gap");
            from = -1;
          }
        }
      };
      stripe("gap", (i) => !d.tracked[i]);
      const own = marksOf(current);
      stripe("marked", (i) => own.some((m) => covers(m, d.frame[i])));
      const [a, b] = range;
      if (a !== null || b !== null) stripe("range", (i) => i >= (a ?? 0) && i <= (b ?? current.n - 1));
      for (const [values, css] of lines) plot.line(picture, values, d.time, when, y, css);
      node.cursor = svg("line", { class: "cursor", y1: 10, y2: height - 16 });
      picture.append(node.cursor);
      node.place = () => { node.cursor.setAttribute("x1", x(at)); node.cursor.setAttribute("x2", x(at)); };
      node.place();
    };
    const point = (event) => {
      if (!(event.buttons & 1)) return;
      const area = picture.getBoundingClientRect(), end = d.time[current.n - 1] || 1;
      const t = (event.clientX - area.left - LEFT) / (area.width - LEFT - RIGHT) * end;
      let best = 0;
      d.time.forEach((v, i) => { if (Math.abs(v - t) < Math.abs(d.time[best] - t)) best = i; });
      stop(); go(best);
    };
    picture.addEventListener("pointerdown", point);
    picture.addEventListener("pointermove", point);
    return node;
  }
  function plots() {
    const d = current.curves, found = [], more = [["key m", "left out"], ...(d.tracked.includes(0) ? [["key g", "interpolated"]] : [])];
    if (d.smooth) {
      const what = d.measure === "disgust" ? "Nose and upper lip" : "Lip corners";
      found.push(figure(what + ", mouth widths", [["key raw", "as tracked"], ["key", "smoothed"], ...more], 150, ...plot.span(d.raw.concat(d.smooth), .02), 2, [[d.raw, "raw"], [d.smooth, ""]], d.phases));
    }
    if (current.attention) found.push(figure("Temporal weight", [["key", facts.model]], 90, 0, Math.max(...current.attention.weights) * 1.05, 3, [[current.attention.weights, ""]], []));
    if (d.pose.flat().some((v) => v !== null)) {
      const most = plot.most(d.pose.flat());
      found.push(figure("Head pose, degrees", [["key", "yaw"], ["key b", "pitch"], ["key c", "roll"], ...(d.smooth ? [] : more)], 120, -most, most, 0, d.pose.map((v, k) => [v, ["", "b", "c"][k]]), []));
    }
    el("plots").replaceChildren(...found);
    drawn = found;
    for (const node of found) node.render();
  }
  let state = "";
  function draw() {
    if (!current?.curves) return;
    drawFace(); drawPoints();
    const now = JSON.stringify([current.row, range, marksOf(current)]);
    for (const node of drawn) if (now === state) node.place(); else node.render();
    state = now;
  }

  // ---- playing
  function stop() {
    if (playing) cancelAnimationFrame(playing);
    playing = 0;
    el("play").lastChild.textContent = " Play";
  }
  function play() {
    if (playing) { stop(); return; }
    if (!current?.curves) return;
    const d = current.curves, from = at >= current.n - 1 ? 0 : at, began = performance.now();
    el("play").lastChild.textContent = " Stop";
    const tick = (now) => {
      const t = d.time[from] + (now - began) / 1000;
      let i = at < from ? from : at;
      if (i === current.n - 1) i = from;
      while (i < current.n - 1 && d.time[i + 1] <= t) i++;
      go(i);
      if (i >= current.n - 1) stop(); else playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  }

  // ---- what people do
  const toggle = (id) => { el(id).checked = !el(id).checked; draw(); };
  const keys = {
    ArrowDown: () => step(1), ArrowUp: () => step(-1), Home: () => go(0), End: () => go(Infinity),
    ArrowRight: (e) => { stop(); go(at + (e.shiftKey ? 10 : 1)); }, ArrowLeft: (e) => { stop(); go(at - (e.shiftKey ? 10 : 1)); },
    " ": play, s: () => set(0), e: () => set(1), x: exclude, u: undo, p: () => toggle("with-points"), a: () => toggle("with-heat"),
    "?": () => el("keys").showModal(), "/": () => el("find").focus(), Escape: () => { range = [null, null]; showMarks(); draw(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.ctrlKey && event.key.toLowerCase() !== "z") return;
    const on = event.target, typing = on === el("find") || on === el("show");
    if (on === el("find") && ["Enter", "Escape", "ArrowDown"].includes(event.key)) {
      event.preventDefault();
      if (event.key !== "Escape" && shown.length && !shown.includes(current)) open(shown[0]);
      el("viewer").focus();
      return;
    }
    if (typing || (event.key === " " && on.matches?.("button, input[type=checkbox], summary"))) return;
    const act = event.ctrlKey ? undo : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
  for (const [id, act] of [["play", play], ["from", () => set(0)], ["to", () => set(1)], ["exclude", exclude], ["undo", undo], ["help", keys["?"]]]) el(id).addEventListener("click", act);
  el("frame").addEventListener("input", () => { stop(); go(Number(el("frame").value)); });
  for (const id of ["with-points", "with-heat"]) el(id).addEventListener("change", draw);
  el("find").addEventListener("input", list);
  el("show").addEventListener("change", list);
  el("clips").addEventListener("click", (event) => { const line = event.target.closest("li"); if (line) open(line.clip); });
  let resized = 0;
  addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { for (const node of drawn) node.render(); }, 120); });
  el("attend").hidden = !facts.model;
  list();
  if (clips.length) open(clips[0]).then(() => el("viewer").focus({ preventScroll: true }));
})();
