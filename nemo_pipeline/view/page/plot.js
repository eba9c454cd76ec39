"use strict";
// What the pages draw with: elements, and curves over time with axes.
const plot = (() => {
  const LEFT = 34, RIGHT = 8, TOP = 12, BOTTOM = 18; // margins of a picture, pixels
  const make = (name, attributes, ...children) => {
    const node = document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    node.append(...children);
    return node;
  };
  const svg = (name, attributes, content) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (content !== undefined) node.textContent = content;
    return node;
  };
  const caption = (title, keys) => make("figcaption", {}, make("b", {}, title), ...keys.map(([css, name]) => make("span", { class: css }, name)));
  // The lowest and the highest value to show: of curves with some room around, and of angles, even on both sides.
  function span(values, room) {
    const known = values.filter((v) => v !== null), low = Math.min(...known), high = Math.max(...known);
    const pad = Math.max(room, (high - low) * .08);
    return [low - pad, high + pad];
  }
  function most(angles) {
    return Math.max(20, Math.ceil(Math.max(...angles.filter((v) => v !== null).map(Math.abs)) / 10) * 10);
  }
  // Seconds below, values from low to high on the left; where times and values lie.
  function axes(picture, width, height, end, low, high, digits) {
    const x = (t) => LEFT + t / end * (width - LEFT - RIGHT);
    const y = (v) => height - BOTTOM - (v - low) / (high - low || 1) * (height - 32);
    for (const v of [low, (low + high) / 2, high]) {
      picture.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v) }));
      picture.append(svg("text", { x: LEFT - 4, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(digits)));
    }
    const step = [.1, .2, .5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600].find((s) => end / s <= width / 70) || end;
    for (let t = 0; t <= end * 1.0001; t += step) {
      picture.append(svg("text", { x: x(t), y: height - 3, "text-anchor": t ? "middle" : "start" }, +t.toFixed(2) + (t ? "" : " s")));
    }
    return [x, y];
  }
  // A stretch of time: over the whole height, or as a thin line below.
  function band(picture, css, left, right, height, below) {
    const place = below ? { y: height - BOTTOM, height: 4 } : { y: TOP, height: height - BOTTOM - TOP };
    picture.append(svg("rect", { class: css, x: left, width: right - left, ...place }));
  }
  function phases(picture, found, x, height) {
    for (const [name, a, b] of found) {
      band(picture, name, x(a), Math.max(x(a) + 1, x(b)), height);
      if (x(b) - x(a) > 38) picture.append(svg("text", { class: name, x: (x(a) + x(b)) / 2, y: 9, "text-anchor": "middle" }, name));
    }
  }
  // A curve with holes where there is no value.
  function line(picture, values, times, x, y, css) {
    let path = "", pen = false;
    values.forEach((v, i) => {
      if (v === null) { pen = false; return; }
      path += (pen ? "L" : "M") + x(times[i]).toFixed(1) + " " + y(v).toFixed(1);
      pen = true;
    });
    picture.append(svg("path", { class: "line " + css, d: path }));
  }
  return { LEFT, RIGHT, make, svg, caption, span, most, axes, band, phases, line };
})();
