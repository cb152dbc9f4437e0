// Curves with uPlot, in the colours of the page's theme.
const DATA = JSON.parse(document.getElementById("data").textContent);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function drawCurves() {
  for (const place of document.querySelectorAll(".plot")) {
    place.plot?.destroy();
    place.plot = null;
    fitChart(place);
  }
}

// Drawn once it has a size: charts in closed details have none.
function fitChart(place) {
  const width = place.clientWidth, height = place.clientHeight;
  if (!width) return;
  if (place.plot) place.plot.setSize({ width, height });
  else place.plot = drawChart(place, DATA.charts[Number(place.dataset.chart)], width, height);
}

function drawChart(place, chart, width, height) {
  const quiet = colour("quiet"), line = colour("line"), readout = place.parentElement.querySelector(".readout");
  const text = (value) => value == null ? "–" : chart.share ? (100 * value).toFixed(1) + " %" : String(Number(value.toPrecision(4)));
  let next = 0;
  const strokes = chart.curves.map((curve) => curve.dashed ? quiet : colour("c" + (curve.quiet ? next : next++) % 12));
  const series = chart.curves.map((curve, i) => ({
    label: curve.name, spanGaps: true, points: { show: chart.x.length === 1 }, dash: curve.dashed ? [6, 5] : undefined,
    stroke: curve.quiet ? strokes[i] + "66" : strokes[i], width: curve.quiet ? 1 : 2,
  }));
  const levels = chart.levels.map((level) => level.value);
  const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };

  // Under the chart: which line is which, and while the mouse is on it, their values there.
  function read(index) {
    const entries = chart.curves.map((curve, i) => {
      const entry = document.createElement("span"), key = document.createElement("i");
      key.style.background = strokes[i];
      key.style.opacity = curve.quiet ? 0.45 : 1;
      entry.append(key, curve.name + (index == null ? "" : " " + text(curve.values[index])));
      return entry;
    });
    const step = document.createElement("span");
    step.textContent = index == null ? "" : "step " + chart.x[index].toLocaleString("en");
    readout.replaceChildren(...(index == null && entries.length === 1 ? [] : [step, ...entries]));
  }

  const plot = new uPlot({
    width, height,
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
    legend: { show: false },
    scales: {
      x: { time: false },
      y: { range: (_, low, high) => yRange(Math.min(low ?? Infinity, ...levels), Math.max(high ?? -Infinity, ...levels)) },
    },
    axes: [
      { ...axis, size: 36, values: (_, steps) => steps.map((step) => step >= 10000 ? step / 1000 + "k" : step) },
      { ...axis, size: 54, values: (_, values) => values.map((value) => chart.share ? Math.round(100 * value) + " %" : Number(value.toPrecision(6))) },
    ],
    series: [{}, ...series],
    hooks: { draw: [(plot) => drawLevels(plot, chart.levels)], setCursor: [(plot) => read(plot.cursor.idx)] },
  }, [chart.x, ...chart.curves.map((curve) => curve.values)], place);
  read(null);
  return plot;
}

// What a curve must be compared with stays in sight, and a hair's breadth is not blown up to look like a gain.
function yRange(low, high) {
  const middle = (low + high) / 2, half = Math.max((high - low) / 2, 0.05 * Math.max(Math.abs(low), Math.abs(high)));
  return uPlot.rangeNum(middle - half, middle + half, 0.08, true);
}

function drawLevels(plot, levels) {
  const { ctx, bbox } = plot, ratio = uPlot.pxRatio;
  ctx.save();
  ctx.font = 12 * ratio + "px system-ui, sans-serif";
  ctx.textAlign = "right";
  const taken = [];
  levels.forEach((level) => {
    const y = Math.round(plot.valToPos(level.value, "y", true));
    ctx.strokeStyle = ctx.fillStyle = colour("quiet");
    ctx.setLineDash([6 * ratio, 5 * ratio]);
    ctx.lineWidth = ratio;
    ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
    // Above its line, or below where another name already stands there.
    const below = taken.some((other) => Math.abs(other - (y - 9 * ratio)) < 14 * ratio) || y - bbox.top < 18 * ratio;
    const at = below ? y + 15 * ratio : y - 5 * ratio;
    taken.push(below ? y + 10 * ratio : y - 9 * ratio);
    ctx.lineWidth = 4 * ratio; ctx.setLineDash([]); ctx.strokeStyle = colour("sheet");
    ctx.strokeText(level.name, bbox.left + bbox.width - 6 * ratio, at);
    ctx.fillText(level.name, bbox.left + bbox.width - 6 * ratio, at);
  });
  ctx.restore();
}

const sizes = new ResizeObserver((entries) => entries.forEach((entry) => fitChart(entry.target)));
document.querySelectorAll(".plot").forEach((place) => sizes.observe(place));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCurves);
