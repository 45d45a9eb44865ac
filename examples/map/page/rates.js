// Rates: bytes a second of the links of the selected namespace, read only while the panel shows them.
const kept = 60, counted = 64;
const rates = new Map(); // a link's index -> [{rx, tx}], the last one last
let last = null;         // the counters before
let uncounted = '';      // why there are none
let polling = false;

function forgetRates() {
  rates.clear();
  last = null;
  uncounted = '';
}

async function poll() {
  const n = details?.namespace;
  if (polling || !n || !selected || gone || document.hidden) return;
  const links = (n.links ?? []).slice(0, everyLink ? counted : fewLinks).map(l => l.index);
  if (!links.length) return;
  polling = true;
  const key = selected;
  try {
    const r = await fetch(`/rates?ns=${n.inode}&links=${links.join(',')}`);
    if (r.ok && key === selected) count(await r.json(), key);
  } catch { // the banner tells that the connection is lost
  }
  polling = false;
}

// count makes rates of counters and those before.
function count(now, key) {
  if (key !== selected) return;
  uncounted = now.trouble ?? '';
  const seconds = last && (now.at - last.at) / 1e6;
  for (const l of now.links ?? []) {
    const before = last?.links?.find(x => x.index === l.index);
    if (!before || seconds <= 0) continue;
    const all = rates.get(l.index) ?? [];
    // A counter that is less than before is of another link with the same number.
    all.push({rx: Math.max(0, l.rx - before.rx) / seconds, tx: Math.max(0, l.tx - before.tx) / seconds});
    rates.set(l.index, all.slice(-kept));
  }
  last = now;
  draw();
}

setInterval(poll, 1000);

// curve draws the rates of a link.
function curve(index) {
  const all = rates.get(index);
  if (!all) return uncounted ? null : h('div.rate', null, h('i', null, ' ')); // the room that it will need
  const width = 120, height = 24, top = Math.max(1000, ...all.map(r => Math.max(r.rx, r.tx)));
  const line = what => all.map((r, i) => `${i ? 'L' : 'M'}${(width - (all.length - 1 - i) * width / (kept - 1)).toFixed(1)} ${(height - r[what] / top * (height - 2) - 1).toFixed(1)}`).join('') + 'h0'; // which makes a dot of one
  const first = (width - (all.length - 1) * width / (kept - 1)).toFixed(1), now = all[all.length - 1];
  return h('div.rate', {title: `Bytes a second in the last minute, at most ${bytes(top)}`},
    h('i.down', null, `↓ ${bytes(now.rx)}`), h('i.up', null, `↑ ${bytes(now.tx)}`),
    h('svg', {viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'},
      h('path.axis', {d: `M0 ${height}H${width}`}), h('path.area', {d: `${line('rx')}L${width} ${height}L${first} ${height}Z`}),
      h('path.rx', {d: line('rx')}), h('path.tx', {d: line('tx')})));
}

function bytes(n) {
  let i = 0;
  for (; n >= 1000 && i < 4; i++) n /= 1000;
  return `${n >= 100 || i === 0 ? Math.round(n) : n.toFixed(1)} ${['B', 'kB', 'MB', 'GB', 'TB'][i]}/s`;
}
