"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { height, width, targets, edges, colours, layers, chips } = data;
  const MARKS = { r: "real", f: "false", u: "unsure" };
  const UNSCORED = 255;
  const marks = new Map();
  let exported = true, selected = -1, threshold = 0, opacity = 0.8, swipe = 0.5, outlines = true;
  const view = { x: width / 2, y: height / 2, k: 1 };

  // The scores come as compressed bytes, not as pictures: a browser may change what it reads back
  // from a picture, and a threshold needs the very numbers.
  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  const sheet = (w, h) => Object.assign(document.createElement("canvas"), { width: w, height: h });
  for (const layer of layers) {
    layer.values = await inflate(layer.scores);
    layer.close = layer.chips ? await inflate(layer.chips) : null;
    layer.sheet = sheet(layer.width, layer.height);
    layer.chipSheet = chips && sheet(chips.side * chips.columns, chips.side * chips.rows);
  }
  const sceneImage = $("scene"), chipImage = $("chips");
  await Promise.all([sceneImage, chipImage].map((image) => image && image.decode()));

  // ---- scores to colours -------------------------------------------------------------------
  function paint(canvas, values) {
    const look = new Uint32Array(256), rgba = new Uint8Array(look.buffer);
    colours.forEach((colour, value) => value >= threshold && rgba.set(colour, 4 * value));
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let n = 0; n < values.length; n++) pixels[n] = look[values[n]];
    for (let n = 0, w = canvas.width; n < values.length; n++) {  // hatched: not scored
      if (values[n] === UNSCORED && ((n % w) + Math.floor(n / w)) % 8 < 2) pixels[n] = 0xff4040e0;
    }
    context.putImageData(image, 0, 0);
  }
  function paintAll() {
    for (const layer of layers) {
      paint(layer.sheet, layer.values);
      if (layer.close) paint(layer.chipSheet, layer.close);
    }
  }

  // ---- the viewer --------------------------------------------------------------------------
  const canvas = $("view"), context = canvas.getContext("2d");
  let side = [1, 1], overlay = sheet(1, 1), frame = 0;
  const paths = targets.map((target) => {
    const path = new Path2D();
    for (const ring of target.rings) {
      ring.forEach(([col, row], n) => (n ? path.lineTo(col, row) : path.moveTo(col, row)));
      path.closePath();
    }
    return path;
  });
  const centre = ({ box }) => [(box[1] + box[3]) / 2, (box[0] + box[2]) / 2];
  const place = (x, y) => [(x - view.x) * view.k + side[0] / 2, (y - view.y) * view.k + side[1] / 2];
  const scenePixel = (x, y) => [view.x + (x - side[0] / 2) / view.k, view.y + (y - side[1] / 2) / view.k];

  function fit() {
    view.x = width / 2; view.y = height / 2;
    view.k = Math.min(side[0] / width, side[1] / height) * 0.98;
    draw();
  }
  function resize() {
    const first = side[0] === 1, ratio = window.devicePixelRatio || 1;
    side = [canvas.clientWidth || 1, canvas.clientHeight || 1];
    canvas.width = side[0] * ratio; canvas.height = side[1] * ratio;
    overlay = sheet(canvas.width, canvas.height);
    if (first) fit(); else draw();
  }
  function zoom(factor, x = side[0] / 2, y = side[1] / 2) {
    const [col, row] = scenePixel(x, y);
    const least = 0.5 * Math.min(side[0] / width, side[1] / height, 1);
    view.k = Math.min(Math.max(view.k * factor, least), 40);
    view.x = col - (x - side[0] / 2) / view.k; view.y = row - (y - side[1] / 2) / view.k;
    draw();
  }
  function pan(dx, dy) {
    view.x = Math.min(Math.max(view.x - dx / view.k, 0), width);
    view.y = Math.min(Math.max(view.y - dy / view.k, 0), height);
    draw();
  }
  function draw() { if (!frame) frame = requestAnimationFrame(() => { frame = 0; render(); }); }

  function setUp(target) {  // scene pixels become the units of a context
    const ratio = canvas.width / side[0], k = view.k * ratio;
    target.setTransform(k, 0, 0, k, canvas.width / 2 - view.x * k, canvas.height / 2 - view.y * k);
    target.imageSmoothingQuality = "high";
    return k;
  }
  function closeUps(target, image, coarse, clear) {
    if (!chips || view.k * coarse < 1) return;
    const { side: n, columns } = chips;
    chips.frames.forEach(([row, col, factor], i) => {
      if (factor >= coarse) return;
      const box = [col, row, n * factor, n * factor];
      if (clear) target.clearRect(...box);
      target.drawImage(image, n * (i % columns), n * Math.floor(i / columns), n, n, ...box);
    });
  }
  function renderScores(layer, left, right) {
    const target = overlay.getContext("2d");
    target.setTransform(1, 0, 0, 1, 0, 0);
    target.clearRect(0, 0, overlay.width, overlay.height);
    target.save();
    target.beginPath(); target.rect(left, 0, right - left, overlay.height); target.clip();
    const k = setUp(target);
    target.imageSmoothingEnabled = k * layer.factor < 1;
    target.drawImage(layer.sheet, 0, 0, layer.width * layer.factor, layer.height * layer.factor);
    if (layer.close) closeUps(target, layer.chipSheet, layer.factor, true);
    target.restore();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = opacity; context.drawImage(overlay, 0, 0); context.globalAlpha = 1;
  }
  function render() {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.save();
    const k = setUp(context), coarse = data.scene_factor;
    context.beginPath(); context.rect(0, 0, width, height); context.clip();
    context.imageSmoothingEnabled = k * coarse < 2;
    context.drawImage(sceneImage, 0, 0, sceneImage.naturalWidth * coarse, sceneImage.naturalHeight * coarse);
    if (chipImage) closeUps(context, chipImage, coarse, false);
    const cut = layers.length > 1 ? Math.round(swipe * canvas.width) : canvas.width;
    renderScores(layers[0], 0, cut);
    if (layers.length > 1) renderScores(layers[1], cut, canvas.width);
    context.restore();
    const ratio = canvas.width / side[0];
    if (outlines) targets.forEach((target, i) => isShown(i) && outline(target, i, ratio));
    if (layers.length > 1) {
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.fillStyle = "#fff"; context.fillRect(cut / ratio - 1, 0, 2, side[1]);
      context.fillRect(cut / ratio - 9, side[1] / 2 - 16, 18, 32);
      context.fillStyle = "#333"; context.font = "14px sans-serif"; context.textAlign = "center";
      context.fillText("\u2194", cut / ratio, side[1] / 2 + 5);
    }
    scaleBar();
  }
  function outline(target, i, ratio) {
    const chosen = i === selected, extent = Math.max(target.box[2] - target.box[0], target.box[3] - target.box[1]);
    const [x, y] = place(...centre(target));
    if (x < -50 || y < -50 || x > side[0] + 50 || y > side[1] + 50) {
      if (extent * view.k < 50) return;
    }
    context.save();
    const circle = extent * view.k < 9;
    if (circle) {  // too small on this screen for an outline
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.beginPath(); context.arc(x, y, chosen ? 11 : 7, 0, 2 * Math.PI);
    } else setUp(context);
    const unit = circle ? 1 : 1 / view.k;
    for (const [colour, line] of [["#000c", chosen ? 5 : 3], [chosen ? "#fff" : target.colour, chosen ? 2.5 : 1.5]]) {
      context.strokeStyle = colour; context.lineWidth = line * unit;
      if (circle) context.stroke(); else context.stroke(paths[i]);
    }
    context.restore();
    if (!chosen && view.k * data.scene_factor < 0.8 && target.rank > 20) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = `${chosen ? "bold 13px" : "11px"} system-ui, sans-serif`; context.textAlign = "left";
    const half = circle ? 8 : ((target.box[3] - target.box[1]) * view.k) / 2 + 4;
    context.lineWidth = 3; context.strokeStyle = "#000c"; context.fillStyle = "#fff";
    context.strokeText(target.rank, x + half, y - half * 0.5);
    context.fillText(target.rank, x + half, y - half * 0.5);
  }
  function scaleBar() {
    const per = data.metres || 1, unit = data.metres ? "m" : "px";
    const most = 140 * per / view.k, power = 10 ** Math.floor(Math.log10(most));
    const length = power * [5, 2, 1].find((n) => n * power <= most);
    $("bar").style.width = `${length * view.k / per}px`;
    $("length").textContent = data.metres && length >= 1000 ? `${length / 1000} km` : `${+length.toPrecision(1)} ${unit}`;
  }

  // ---- where the pointer is ----------------------------------------------------------------
  function degrees([lon, lat]) {
    const east = ((lon + 540) % 360) - 180;
    return `${Math.abs(lat).toFixed(5)}\u00b0 ${lat < 0 ? "S" : "N"}  ${Math.abs(east).toFixed(5)}\u00b0 ${east < 0 ? "W" : "E"}`;
  }
  function lonLat(col, row) {
    const grid = data.places;
    if (!grid) return null;
    const at = (value, most, count) => {
      const place = Math.min(Math.max(value / most, 0), 1) * (count - 1), first = Math.min(Math.floor(place), count - 2);
      return [first, place - first];
    };
    const n = grid.lon.length, [i, v] = at(row, height, n), [j, u] = at(col, width, n);
    const mix = (g) => (g[i][j] * (1 - u) + g[i][j + 1] * u) * (1 - v) + (g[i + 1][j] * (1 - u) + g[i + 1][j + 1] * u) * v;
    const found = [mix(grid.lon), mix(grid.lat)];
    return found.every(Number.isFinite) ? found : null;
  }
  function short(score) {  // what is less than 1 does not read as 1
    const text = score.toPrecision(3);
    return score < 1 && +text >= 1 ? score.toFixed(1 - Math.floor(Math.log10(1 - score))) : text;
  }
  function scoreText(value) {
    if (value === UNSCORED) return "not scored";
    if (!value) return "no data";
    return value === 1 ? `score < ${short(edges[0])}` : `score ${short(edges[value - 2])}`;
  }
  function tell(x, y) {
    const [col, row] = scenePixel(x, y);
    if (col < 0 || row < 0 || col >= width || row >= height) { $("where").textContent = ""; return; }
    const place = lonLat(col, row);
    const layer = layers[layers.length > 1 && x > swipe * side[0] ? 1 : 0];
    const value = layer.values[Math.floor(row / layer.factor) * layer.width + Math.floor(col / layer.factor)];
    $("where").textContent = `row ${Math.floor(row)}, column ${Math.floor(col)}` +
      (place ? `, ${degrees(place)}` : "") + `, ${scoreText(value)}`;
  }

  // ---- pointer, wheel, keys ----------------------------------------------------------------
  const pointers = new Map();
  let moved = 0, swiping = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    moved = 0;
    swiping = layers.length > 1 && Math.abs(event.offsetX - swipe * side[0]) < 12;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = [event.offsetX, event.offsetY], before = pointers.get(event.pointerId);
    tell(...now);
    if (!before) return;
    moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    if (swiping) setSwipe(now[0] / side[0]);
    else if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const gap = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
      zoom(gap(now) / Math.max(gap(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else pan(now[0] - before[0], now[1] - before[1]);
    pointers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (pointers.delete(event.pointerId) && name === "pointerup" && moved < 5 && !swiping) pick(event.offsetX, event.offsetY);
    });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(2 ** (-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), event.offsetX, event.offsetY);
  }, { passive: false });
  function pick(x, y) {
    let nearest = -1, least = 15;
    targets.forEach((target, i) => {
      if (!isShown(i)) return;
      const [left, top] = place(target.box[1], target.box[0]), [right, bottom] = place(target.box[3], target.box[2]);
      const gap = Math.hypot(Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
      if (gap < least) { least = gap; nearest = i; }
    });
    if (nearest >= 0) select(nearest, false);
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=range])")) return;
    const actions = {
      j: () => step(1), k: () => step(-1), h: fit, o: () => $("outlines").click(),
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), x: () => mark(selected, null),
    };
    if (MARKS[event.key]) mark(selected, MARKS[event.key]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });

  // ---- the list ----------------------------------------------------------------------------
  const items = [...document.querySelectorAll("#list > li:not(.empty)")];
  const isShown = (i) => !items[i].hidden;
  function select(i, move = true) {
    if (selected >= 0) items[selected].removeAttribute("aria-current");
    selected = i;
    if (i < 0) return draw();
    items[i].setAttribute("aria-current", "true");
    items[i].scrollIntoView({ block: "nearest" });
    if (move) {
      const { box } = targets[i], extent = Math.max(box[2] - box[0], box[3] - box[1], 24);
      [view.x, view.y] = centre(targets[i]);
      view.k = Math.max(view.k, Math.min(Math.min(...side) / (4 * extent), 6));
    }
    draw();
  }
  function step(by) {
    for (let i = selected < 0 && by < 0 ? items.length - 1 : selected + by; i >= 0 && i < items.length; i += by) {
      if (isShown(i)) return select(i);
    }
  }
  function mark(i, value) {
    if (i < 0) return;
    const same = marks.get(i) === value;
    if (value === null || same) marks.delete(i); else marks.set(i, value);
    exported = false;
    for (const button of items[i].querySelectorAll("button[data-mark]")) {
      button.setAttribute("aria-pressed", String(marks.get(i) === button.dataset.mark));
    }
    items[i].dataset.marked = marks.get(i) || "";
    count();
  }
  function filter() {
    const wanted = $("marked").value;
    items.forEach((item, i) => {
      const now = marks.get(i) || "unmarked";
      const fits = wanted === "all" || wanted === now || (wanted === "marked" && now !== "unmarked");
      item.hidden = !fits || (threshold > 1 && targets[i].score < edges[threshold - 2]);
    });
    count();
    draw();
  }
  function count() {
    $("count").textContent = `${items.filter((item) => !item.hidden).length} of ${items.length} target${items.length === 1 ? "" : "s"}, ${marks.size}\u00a0marked`;
    $("export").disabled = !marks.size;
  }
  function chip(item, name, image, i) {
    const target = item.querySelector(name).getContext("2d"), n = chips.side;
    target.clearRect(0, 0, n, n);
    target.drawImage(image, n * (i % chips.columns), n * Math.floor(i / chips.columns), n, n, 0, 0, n, n);
  }
  function drawChips() {
    if (!chips || !layers[0].close) return;
    items.forEach((item, i) => chip(item, ".score", layers[0].chipSheet, i));
  }

  // ---- controls ----------------------------------------------------------------------------
  function setThreshold(value) {
    threshold = Math.min(Math.max(Math.round(value), 1), edges.length + 1);
    $("threshold").value = threshold;
    const score = threshold > 1 ? edges[threshold - 2] : 0, far = data.far[threshold - 1];
    $("threshold-text").textContent = short(score) +
      (far === null ? "" : `, about ${+far.toPrecision(2)} false per Mpx`);
    for (const button of document.querySelectorAll("button[data-level]")) {
      button.setAttribute("aria-pressed", String(+button.dataset.level === threshold));
    }
    paintAll(); drawChips(); filter();
  }
  function setSwipe(value) {
    swipe = Math.min(Math.max(value, 0), 1);
    $("swipe").value = 100 * swipe;
    draw();
  }
  function setOpacity(value) {
    opacity = value / 100;
    $("opacity").value = value;
    $("opacity-text").textContent = `${value} %`;
    draw();
  }
  function save() {
    const features = [...marks].sort(([a], [b]) => a - b).map(([i, value]) => ({
      type: "Feature",
      geometry: targets[i].geometry,
      properties: { ...targets[i].properties, mark: value },
    }));
    const collection = { type: "FeatureCollection", ...data.about, features };
    const url = URL.createObjectURL(new Blob([JSON.stringify(collection)], { type: "application/geo+json" }));
    const link = Object.assign(document.createElement("a"), { href: url, download: data.export_name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    exported = true;
  }
  $("threshold").addEventListener("input", (event) => setThreshold(+event.target.value));
  $("opacity").addEventListener("input", (event) => setOpacity(+event.target.value));
  $("outlines").addEventListener("change", (event) => { outlines = event.target.checked; draw(); });
  $("marked").addEventListener("change", filter);
  $("export").addEventListener("click", save);
  $("home").addEventListener("click", fit);
  $("in").addEventListener("click", () => zoom(1.5));
  $("out").addEventListener("click", () => zoom(1 / 1.5));
  if (layers.length > 1) $("swipe").addEventListener("input", (event) => setSwipe(event.target.value / 100));
  for (const button of document.querySelectorAll("button[data-level]")) {
    button.addEventListener("click", () => setThreshold(+button.dataset.level));
  }
  items.forEach((item, i) => {
    if (chipImage) chip(item, ".picture", chipImage, i);
    item.addEventListener("click", (event) => {
      const { mark: value } = event.target.dataset;
      if (value) mark(i, value);
      select(i, !value);
    });
  });
  window.addEventListener("beforeunload", (event) => { if (!exported && marks.size) event.preventDefault(); });
  new ResizeObserver(resize).observe(canvas);
  resize(); setOpacity(80); setThreshold(data.threshold);
  if (layers.length > 1) setSwipe(0.5);
  document.documentElement.dataset.ready = "yes";
})();
