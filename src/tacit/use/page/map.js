// The map of samples, on a canvas: dots or thumbnails, a closer look on hover, moved and zoomed by hand.
function drawMap(map) {
  const canvas = document.getElementById("field"), context = canvas.getContext("2d");
  const tip = document.getElementById("tip"), legend = document.getElementById("legend");
  const tools = [...document.querySelectorAll(".tools button")];
  const sheets = [...document.querySelectorAll("img.sheet")];
  const count = map.x.length, perSheet = map.tiles * map.tiles;
  const COLOURS = 12;
  let view = { x: 0, y: 0, zoom: 1 }, pictures = true, only = null, pointed = -1, palette = [];

  const extent = (values) => Math.max(1e-6, values.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
  const [wide, high] = [extent(map.x), extent(map.y)];
  const scale = () => 0.46 * Math.min(canvas.clientWidth / wide, canvas.clientHeight / high) * view.zoom;
  const at = (i) => [canvas.clientWidth / 2 + (map.x[i] - view.x) * scale(), canvas.clientHeight / 2 + (map.y[i] - view.y) * scale()];
  const shown = (i) => only === null || map.label[i] === only;
  const tint = (i) => map.label[i] >= 0 && map.label[i] < COLOURS ? palette[map.label[i]] : map.labels.length ? palette[COLOURS] : palette[0];

  function thumbnail(target, i, x, y, side) {
    const sheet = sheets[Math.floor(i / perSheet)], place = i % perSheet;
    if (!sheet || !sheet.complete) return;
    target.drawImage(sheet, (place % map.tiles) * map.tile, Math.floor(place / map.tiles) * map.tile, map.tile, map.tile, x, y, side, side);
  }

  function draw() {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    context.scale(ratio, ratio);
    const radius = Math.max(2.5, Math.min(6, 90 / Math.sqrt(count) * Math.sqrt(view.zoom)));
    const side = Math.min(64, Math.max(26, 30 * Math.sqrt(view.zoom)));
    const taken = {}, pinned = [];
    for (let i = 0; i < count; i++) {
      const [x, y] = at(i);
      if (x < -side || y < -side || x > width + side || y > height + side) continue;
      if (pictures && shown(i)) {
        // A picture is drawn where there is room for it; the others are dots until one looks closer.
        const column = Math.round(x / side), row = Math.round(y / side);
        let free = true;
        for (let a = -1; a <= 1 && free; a++) for (let b = -1; b <= 1 && free; b++) {
          const other = taken[(column + a) + ":" + (row + b)];
          if (other && Math.abs(other[0] - x) < side && Math.abs(other[1] - y) < side) free = false;
        }
        if (free) { taken[column + ":" + row] = [x, y]; pinned.push(i); continue; }
      }
      context.globalAlpha = shown(i) ? 0.85 : 0.12;
      context.fillStyle = tint(i);
      context.beginPath(); context.arc(x, y, radius, 0, 7); context.fill();
    }
    context.globalAlpha = 1;
    for (const i of pinned) {
      const [x, y] = at(i);
      thumbnail(context, i, x - side / 2, y - side / 2, side);
      if (map.labels.length) { context.strokeStyle = tint(i); context.lineWidth = 2; context.strokeRect(x - side / 2, y - side / 2, side, side); }
    }
    if (pointed >= 0) {
      const [x, y] = at(pointed), box = pinned.includes(pointed) ? side / 2 + 2 : radius + 3;
      context.strokeStyle = palette[COLOURS + 1]; context.lineWidth = 3;
      context.strokeRect(x - box, y - box, 2 * box, 2 * box);
    }
    for (const tool of tools) {
      if (tool.dataset.do === "dots") tool.setAttribute("aria-pressed", String(!pictures));
      if (tool.dataset.do === "pictures") tool.setAttribute("aria-pressed", String(pictures));
    }
  }

  function point(x, y, reach) {
    let best = -1, distance = reach * reach;
    for (let i = 0; i < count; i++) {
      if (!shown(i)) continue;
      const [px, py] = at(i), d = (px - x) ** 2 + (py - y) ** 2;
      if (d < distance) { best = i; distance = d; }
    }
    if (best === pointed) return;
    pointed = best;
    tip.hidden = best < 0;
    if (best >= 0) {
      const inner = tip.querySelector("canvas").getContext("2d");
      inner.clearRect(0, 0, 288, 288);
      thumbnail(inner, best, 0, 0, 288);
      tip.querySelector("b").textContent = map.label[best] >= 0 ? map.labels[map.label[best]] : "";
      tip.querySelector("p").textContent = map.path[best];
      const [px, py] = at(best);
      const left = px + 18 + 160 > canvas.clientWidth ? px - 18 - 160 : px + 18;
      const top = Math.max(4, Math.min(py - 60, canvas.clientHeight - tip.offsetHeight - 4));
      tip.style.transform = "translate(" + Math.max(4, left) + "px," + top + "px)";
    }
    draw();
  }

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const right = x - canvas.clientWidth / 2, below = y - canvas.clientHeight / 2;
    const fixed = [view.x + right / scale(), view.y + below / scale()];
    view.zoom = Math.max(1, Math.min(40, view.zoom * factor));
    view.x = view.zoom === 1 ? 0 : fixed[0] - right / scale();
    view.y = view.zoom === 1 ? 0 : fixed[1] - below / scale();
    draw();
  }

  let held = null;
  const local = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => { held = local(event); if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", (event) => { held = null; canvas.classList.remove("moving"); if (event.pointerType !== "mouse") point(...local(event), 28); });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") point(-1e6, -1e6, 1); });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (held && event.pointerType === "mouse") {
      canvas.classList.add("moving");
      view.x -= (x - held[0]) / scale(); view.y -= (y - held[1]) / scale();
      held = [x, y];
      draw();
    } else if (event.pointerType === "mouse") point(x, y, 22);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // A page that scrolls must go on scrolling.
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.004), ...local(event));
  }, { passive: false });

  const act = {
    dots: () => { pictures = false; draw(); }, pictures: () => { pictures = true; draw(); },
    in: () => zoom(1.5), out: () => zoom(1 / 1.5), all: () => { view = { x: 0, y: 0, zoom: 1 }; draw(); },
  };
  for (const tool of tools) tool.addEventListener("click", () => act[tool.dataset.do]());
  map.labels.slice(0, COLOURS).forEach((name, index) => {
    const entry = document.createElement("button"), dot = document.createElement("i");
    entry.type = "button";
    entry.append(dot, name);
    entry.addEventListener("click", () => {
      only = only === index ? null : index;
      [...legend.children].forEach((child, i) => child.setAttribute("aria-pressed", String(only === i)));
      draw();
    });
    legend.append(entry);
  });
  if (map.labels.length > COLOURS) legend.append("and " + (map.labels.length - COLOURS) + " more in grey");

  function paint() {
    palette = [...Array(COLOURS).keys()].map((i) => colour("c" + i)).concat(colour("other"), colour("ink"));
    [...legend.querySelectorAll("i")].forEach((dot, i) => { dot.style.background = palette[i]; });
    draw();
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  new ResizeObserver(draw).observe(canvas);
  Promise.all(sheets.map((sheet) => sheet.decode().catch(() => {}))).then(draw);
  paint();
}

if (DATA.map) drawMap(DATA.map);
