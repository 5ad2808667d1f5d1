// Canvases: the timeline of the memory, and the map.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function prepare(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width];
}

function mix(from, to, share) {
  const read = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [a, b] = [read(from), read(to)];
  return `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * share)).join(" ")})`;
}

const STRIPS = [["surprise", "Surprise", "--heat1"], ["update", "Written", "--heat2"], ["gate", "Gate", "--heat3"]];
const LEFT = 66, AXIS = 18, GAP = 8;

// At most `most` columns for all slots: neighbours share one, which shows the larger value of each layer.
function pool(slots, most) {
  const share = Math.ceil(slots.length / Math.max(1, most));
  if (share <= 1) return slots;
  const columns = [];
  for (let begin = 0; begin < slots.length; begin += share) {
    const group = slots.slice(begin, begin + share);
    const column = { time: group[0].time };
    for (const [name] of STRIPS) {
      column[name] = group[0][name].map((_, layer) => Math.max(...group.map((slot) => slot[name][layer] || 0)));
    }
    columns.push(column);
  }
  return columns;
}

// Draws slots (notes of the server) and returns what lies under a point: (x, y) -> text.
export function drawTimeline(canvas, slots) {
  const layers = slots.length ? slots[0].update.length : 6;
  const cell = Math.max(3, Math.min(11, Math.floor(64 / layers)));
  const strip = cell * layers;
  const height = AXIS + STRIPS.length * (strip + GAP);
  const [context, width] = prepare(canvas, height);
  const room = width - LEFT;
  const shown = pool(slots, Math.floor(room / 2.5));
  const column = Math.min(14, room / Math.max(1, shown.length));
  const zero = css("--heat0");
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  STRIPS.forEach(([name, title, color], number) => {
    const top = number * (strip + GAP);
    context.fillStyle = zero;
    context.fillRect(LEFT, top, room, strip);
    context.fillStyle = css("--quiet");
    context.fillText(title, 0, top + strip / 2);
    for (let layer = 0; layer < layers; layer++) {
      const most = Math.max(1e-12, ...shown.map((slot) => slot[name][layer] || 0));
      shown.forEach((slot, index) => {
        const share = (slot[name][layer] || 0) / most;
        if (share <= 0) return;
        context.fillStyle = mix(zero, css(color), 0.12 + 0.88 * share);
        context.fillRect(LEFT + index * column, top + layer * cell, Math.max(1, column - 0.5), cell - 0.5);
      });
    }
  });
  drawSeconds(context, shown, column, height, width);
  return (x, y) => {
    const slot = shown[Math.floor((x - LEFT) / column)];
    const number = Math.floor(y / (strip + GAP));
    const layer = Math.floor((y - number * (strip + GAP)) / cell);
    if (x < LEFT || !slot || number >= STRIPS.length || layer < 0 || layer >= layers) return "";
    const [name, title] = STRIPS[number];
    return `${slot.time.toFixed(1)} s · layer ${layer + 1} · ${title.toLowerCase()} ${slot[name][layer].toPrecision(3)}`;
  };
}

function drawSeconds(context, shown, column, height, width) {
  context.fillStyle = css("--quiet");
  context.font = "11px system-ui, sans-serif";
  if (!shown.length) {
    context.fillText("nothing seen yet", LEFT + 8, height - AXIS / 2);
    return;
  }
  let free = LEFT;
  shown.forEach((slot, index) => {
    const x = LEFT + index * column;
    if (x < free || x > width - 40) return;
    context.fillText(`${slot.time.toFixed(0)} s`, x, height - AXIS / 2);
    free = x + 64;
  });
}

// The map: `places` from answers; `truth` (rooms, objects, path) beside them where it is known.
export function drawMap(canvas, map, truth, until) {
  const height = Math.round(Math.min(380, Math.max(220, canvas.clientWidth * 0.8)));
  const [context, width] = prepare(canvas, height);
  context.textBaseline = "middle";
  context.fillStyle = css("--heat0");
  context.fillRect(0, 0, width, height);
  const places = map ? map.places : [];
  const points = places.map((p) => [p.x, p.y]);
  if (truth) for (const room of truth.rooms) points.push(...room.polygon);
  if (!points.length) return;
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = Math.min((width - 70) / Math.max(1, right - left), (height - 60) / Math.max(1, high - low));
  const at = ([x, y]) => [width / 2 + (x - (left + right) / 2) * scale, height / 2 - (y - (low + high) / 2) * scale];
  if (truth) drawTruth(context, truth, at, places, until);
  drawPlaces(context, places, at);
  drawScale(context, scale, width, height);
}

function trace(context, polygon, at) {
  context.beginPath();
  polygon.forEach((point, index) => (index ? context.lineTo(...at(point)) : context.moveTo(...at(point))));
}

function drawTruth(context, truth, at, places, until) {
  for (const room of truth.rooms) {
    trace(context, room.polygon, at);
    context.closePath();
    context.fillStyle = css("--panel"); context.fill();
    context.strokeStyle = css("--quiet"); context.lineWidth = 2; context.stroke();
  }
  const named = new Set(places.map((place) => place.category));
  for (const object of truth.objects) {
    trace(context, object.polygon, at);
    context.closePath();
    context.fillStyle = named.has(object.category) ? css("--accent-soft") : "transparent"; context.fill();
    context.globalAlpha = 0.55;
    context.strokeStyle = css("--quiet"); context.lineWidth = 1; context.stroke();
    context.globalAlpha = 1;
  }
  context.font = "11px system-ui, sans-serif"; context.lineJoin = "round";
  for (const room of truth.rooms) {
    const [x, y] = at([0, 1].map((axis) => Math.min(...room.polygon.map((point) => point[axis]))));
    context.strokeStyle = css("--panel"); context.lineWidth = 4;
    context.strokeText(room.function, x + 6, y - 9);
    context.fillStyle = css("--quiet"); context.fillText(room.function, x + 6, y - 9);
  }
  context.strokeStyle = css("--accent"); context.lineWidth = 1;
  context.setLineDash([3, 3]);
  for (const place of places) {  // how far off: to the nearest thing of that kind
    const far = (object) => Math.hypot(object.center[0] - place.x, object.center[1] - place.y);
    const [nearest] = truth.objects.filter((o) => o.category === place.category).sort((a, b) => far(a) - far(b));
    if (nearest) { trace(context, [nearest.center, [place.x, place.y]], at); context.stroke(); }
  }
  context.setLineDash([]);
  const path = truth.path.filter((step) => step[0] <= until);
  trace(context, path.map(([, x, y]) => [x, y]), at);
  context.strokeStyle = css("--heat2"); context.lineWidth = 1.5; context.stroke();
  if (path.length) {
    const [x, y] = at(path[path.length - 1].slice(1));
    context.beginPath(); context.arc(x, y, 4, 0, 7); context.fillStyle = css("--heat2"); context.fill();
  }
}

// A name stands where no other name or dot is yet: beside its dot, or further off with a line to it.
function drawPlaces(context, places, at) {
  context.font = "600 12px system-ui, sans-serif";
  const frame = context.canvas.getBoundingClientRect();
  const dots = places.map((place) => at([place.x, place.y]));
  const taken = dots.map(([x, y]) => [x - 7, y - 7, 14, 14]);
  const names = places.map((place, index) => {
    const text = place.count > 1 ? `${place.category} ×${place.count}` : place.category;
    const spot = freeSpot(dots[index], context.measureText(text).width, taken, [frame.width, frame.height]);
    taken.push(spot.box);
    return { text, ...spot };
  });
  context.strokeStyle = css("--accent"); context.lineWidth = 1;
  names.forEach(({ box: [left, top, wide, high], radius }, index) => {
    if (radius < 20) return;
    const [x, y] = dots[index];
    context.beginPath(); context.moveTo(x, y);
    context.lineTo(Math.max(left, Math.min(x, left + wide)), Math.max(top, Math.min(y, top + high))); context.stroke();
  });
  for (const [x, y] of dots) {
    context.beginPath(); context.arc(x, y, 6, 0, 7);
    context.fillStyle = css("--accent"); context.fill();
    context.strokeStyle = css("--panel"); context.lineWidth = 2; context.stroke();
  }
  for (const { text, box: [left, top, , high] } of names) {
    context.strokeStyle = css("--panel"); context.lineWidth = 4; context.lineJoin = "round";
    context.strokeText(text, left, top + high / 2);
    context.fillStyle = css("--text"); context.fillText(text, left, top + high / 2);
  }
}

// The box [left, top, width, height] px of a name `wide` px long, as near to its dot as there is room.
function freeSpot([x, y], wide, taken, [width, height]) {
  const high = 16;
  const meets = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];
  for (let radius = 8; radius < 120; radius += 7) {
    for (let turn = 0; turn < 16; turn++) {
      const [dx, dy] = [Math.sin(turn * Math.PI / 8), -Math.cos(turn * Math.PI / 8)];
      const box = [x + dx * radius + (dx - 1) * wide / 2, y + dy * radius + (dy - 1) * high / 2, wide, high];
      const inside = box[0] > 2 && box[1] > 2 && box[0] + wide < width - 2 && box[1] + high < height - 2;
      if (inside && !taken.some((other) => meets(box, other))) return { box, radius };
    }
  }
  return { box: [x - wide / 2, y - 24, wide, high], radius: 8 };
}

function drawScale(context, scale, width, height) {
  const metres = [0.5, 1, 2, 5, 10].find((m) => m * scale > 40) || 20;
  context.strokeStyle = css("--quiet"); context.lineWidth = 2;
  context.beginPath(); context.moveTo(14, height - 14); context.lineTo(14 + metres * scale, height - 14); context.stroke();
  context.fillStyle = css("--quiet"); context.font = "11px system-ui, sans-serif";
  context.fillText(`${metres} m`, 14, height - 24);
}
