// Elements: how they are made, and how one becomes like another.
const $ = id => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

// h makes an element: h('p.note', {title: '...'}, 'text', child, ...). What is null or false is left out.
function h(what, attrs, ...children) {
  const [name, ...classes] = what.split('.');
  const e = ['svg', 'path'].includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  if (classes.length) e.setAttribute('class', classes.join(' '));
  for (const [key, value] of Object.entries(attrs ?? {})) {
    if (value != null && value !== false) e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.flat(3).filter(c => c != null && c !== false && c !== ''));
  return e;
}

// morph makes a node like another one and keeps what is the same: the focus, a selection, the scrolling.
function morph(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) {
    old.replaceWith(now);
    return now;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return old;
  }
  for (const a of [...old.attributes]) {
    if (!now.hasAttribute(a.name)) old.removeAttribute(a.name);
  }
  for (const a of now.attributes) {
    if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
  }
  const was = [...old.childNodes], is = [...now.childNodes];
  is.forEach((child, i) => i < was.length ? morph(was[i], child) : old.append(child));
  was.slice(is.length).forEach(child => child.remove());
  return old;
}

const clock = ms => new Date(ms).toLocaleTimeString();
const plural = (n, one, more = one + 's') => `${n.toLocaleString('en')} ${n === 1 ? one : more}`;
