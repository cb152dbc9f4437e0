// Clouds of points that turn under the mouse or a finger, or by the arrow keys. Without scripts their pictures stay alone.
function drawCloud(canvas, cloud) {
  const bytes = Uint8Array.from(atob(cloud.points), (letter) => letter.charCodeAt(0)), count = bytes.length / 4;
  const context = canvas.getContext("2d");
  let about = 0.6, over = 0.4, held = null;

  function draw() {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    context.scale(ratio, ratio);
    const [ca, sa, co, so] = [Math.cos(about), Math.sin(about), Math.cos(over), Math.sin(over)];
    const scale = Math.min(width, height) / 255 / 1.75, size = Math.max(1.5, Math.min(4, 90 / Math.sqrt(count)));
    const placed = [];
    for (let i = 0; i < bytes.length; i += 4) {
      const [x, y, z] = [bytes[i] - 127.5, bytes[i + 1] - 127.5, bytes[i + 2] - 127.5];
      const far = x * sa + y * ca;  // away from the eye, before it looks down
      placed.push([width / 2 + (x * ca - y * sa) * scale, height / 2 - (z * co + far * so) * scale, far * co - z * so, bytes[i + 3]]);
    }
    placed.sort((one, other) => other[2] - one[2]);  // what is near is drawn last
    const ink = [colour("c0"), colour("c1")];
    for (const [x, y, depth, value] of placed) {
      context.globalAlpha = Math.max(0.2, Math.min(1, 0.65 - depth / 320));
      context.fillStyle = ink[cloud.valued && value > 127 ? 1 : 0];
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
    context.globalAlpha = 1;
  }

  function turn(right, down) {
    about += right;
    over = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, over + down));
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn((event.clientX - held[0]) / 120, (event.clientY - held[1]) / 120);
    held = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (by) { event.preventDefault(); turn(...by); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  canvas.hidden = false;
  new ResizeObserver(draw).observe(canvas);
  draw();
}

for (const canvas of document.querySelectorAll("canvas.cloud")) drawCloud(canvas, DATA.clouds[canvas.dataset.cloud]);
