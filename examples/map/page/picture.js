// The picture: the parts that the server sends, by their keys.
const map = $('map');
const policy = window.trustedTypes?.createPolicy('picture', {createHTML: text => text}) ?? {createHTML: text => text};
const parts = new Map(); // key -> {e: element, text: what the server sent}
let root = null;         // the picture
let selected = '';       // the key of the part that the panel is about
const marks = {match: new Set(), current: new Set()}; // keys of parts

// elements makes elements of what the server sent.
function elements(texts) {
  const text = policy.createHTML(`<svg xmlns="${SVG}">${texts.join('')}</svg>`);
  const all = [...new DOMParser().parseFromString(text, 'image/svg+xml').documentElement.children];
  if (all.length !== texts.length) throw new Error('the picture cannot be read');
  return all.map(e => document.importNode(e, true));
}

// dress gives an element what the page knows about it.
function dress(key, e) {
  if (e.hasAttribute('tabindex')) {
    e.setAttribute('role', 'button');
    e.setAttribute('aria-label', e.querySelector('title')?.textContent ?? key);
    if (e.dataset.group == null) e.setAttribute('aria-pressed', String(key === selected));
  }
  e.classList.toggle('selected', key === selected && key !== '');
  for (const [name, keys] of Object.entries(marks)) e.classList.toggle(name, keys.has(key));
  return e;
}

// redress brings all parts up to date after a selection or a search.
function redress() {
  for (const [key, p] of parts) dress(key, p.e);
  root?.classList.toggle('searching', marks.match.size > 0);
}

// frame sets what belongs to the picture as a whole.
function frame(m) {
  if (!root) {
    root = document.createElementNS(SVG, 'svg');
    root.setAttribute('role', 'group');
    map.replaceChildren(root);
  }
  root.setAttribute('width', m.width);
  root.setAttribute('height', m.height);
  root.setAttribute('viewBox', `0 0 ${m.width} ${m.height}`);
  root.setAttribute('aria-label', m.title);
}

const title = e => (e.querySelector('title')?.textContent ?? '').split(', net:')[0];
const rows = e => new Set([...e.querySelectorAll('text')].map(t => t.textContent));

// put makes parts like what the server sent: [key, the key of the part before it, text]. It returns what
// came and what changed: not what only moved.
function put(changes) {
  const made = elements(changes.map(c => c[2])), came = [], changed = [], flash = [];
  changes.forEach(([key, before, text], i) => {
    const now = dress(key, made[i]), was = parts.get(key);
    if (!was) {
      parts.set(key, {e: now, text});
      came.push(now);
      flash.push(now);
    } else {
      const old = rows(was.e), dress = was.e.getAttribute('class'), words = was.e.textContent;
      was.e = morph(was.e, now);
      was.text = text;
      const rest = [...was.e.querySelectorAll('text')].filter(t => !old.has(t.textContent));
      if (was.e.getAttribute('class') !== dress) flash.push(was.e);
      flash.push(...rest);
      if (was.e.textContent !== words) changed.push(was.e);
    }
    const e = parts.get(key).e, after = before ? parts.get(before)?.e.nextSibling : root.firstChild;
    if (e !== after && (e.parentNode !== root || e.previousSibling !== (before ? parts.get(before)?.e : null))) {
      root.insertBefore(e, after ?? null);
    }
  });
  return {came, changed, flash};
}

// drop takes parts away. The focus goes to what is next to the one that had it.
function drop(keys) {
  const went = [];
  for (const key of keys) {
    const p = parts.get(key);
    if (!p) continue;
    went.push(p.e);
    parts.delete(key);
    if (p.e === document.activeElement) {
      const rest = [...root.querySelectorAll(':scope > [tabindex]')], i = rest.indexOf(p.e);
      (rest[i + 1] ?? rest[i - 1])?.focus({preventScroll: true});
    }
    p.e.remove();
  }
  return went;
}

// change applies a message: the whole picture, or what has changed in it.
function change(m) {
  const hold = anchor();
  frame(m);
  let changes = m.put ?? [], gone = m.gone ?? [];
  if (m.parts) {
    const keys = new Set(m.parts.map(p => p[0]));
    gone = [...parts.keys()].filter(k => !keys.has(k));
    let before = '';
    for (const [key, text] of m.parts) {
      if (parts.get(key)?.text !== text) changes.push([key, before, text]);
      before = key;
    }
  }
  const went = drop(gone);
  const done = changes.length ? put(changes) : {came: [], changed: [], flash: []};
  if (m.parts) { // what only changed its place
    let at = root.firstChild;
    for (const [key] of m.parts) {
      const e = parts.get(key).e;
      if (e === at) at = at.nextSibling;
      else root.insertBefore(e, at);
    }
  }
  hold?.();
  return {...done, went};
}

// glow shows for a moment what has changed.
function glow(all) {
  for (const e of all) e.classList.add('flash');
  if (all.length) setTimeout(() => { for (const e of all) e.classList.remove('flash'); }, 1600);
}

// body is what a part looks like without its arrow.
const body = e => e.querySelector('rect, .flag') ?? e;

// anchor notes where something in view is, and returns a function that scrolls it back there.
function anchor() {
  if (!root) return null;
  const view = map.getBoundingClientRect();
  const seen = e => {
    const r = body(e).getBoundingClientRect();
    return r.bottom > view.top && r.top < view.bottom && r.right > view.left && r.left < view.right;
  };
  let e = [document.activeElement, parts.get(selected)?.e].find(x => x && root.contains(x) && x !== root && seen(x));
  if (!e && map.scrollTop > 0) e = [...root.querySelectorAll(':scope > .ns')].find(x => !x.querySelector('.own') && seen(x));
  if (!e) return null;
  const {top, left} = body(e).getBoundingClientRect();
  return () => {
    if (!e.isConnected) return;
    const now = body(e).getBoundingClientRect();
    map.scrollBy({top: now.top - top, left: now.left - left, behavior: 'instant'});
  };
}

// reveal scrolls to a part.
function reveal(e, block = 'nearest') {
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  body(e).scrollIntoView({block, inline: 'nearest', behavior: calm ? 'instant' : 'smooth'});
}
