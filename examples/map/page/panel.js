// The panel: all that is known about the selected namespace or port.
const panel = $('panel');
let details = null;  // of the selected part
let gone = false;    // the selected part is not there any more
let everyLink = false;
let copied = '';     // the command that was copied just now
let asking = false, again = false;
const fewLinks = 40;

const address = key => key.startsWith('port-') ? 'port=' + encodeURIComponent(key.slice(5)) : 'ns=' + key.slice(3);

// select opens the panel for a part, or closes it.
function select(key, keyboard) {
  if (key === selected && !keyboard) return;
  selected = key;
  details = null;
  gone = everyLink = false;
  redress();
  forgetRates();
  panel.hidden = !key;
  if (!key) {
    panel.replaceChildren();
    return;
  }
  draw();
  panel.scrollTop = 0;
  if (keyboard) $('panel-title')?.focus();
  refresh();
  const e = parts.get(key)?.e;
  if (e) reveal(e);
}

// unselect closes the panel and gives the focus back.
function unselect() {
  const e = parts.get(selected)?.e;
  select('');
  e?.focus();
}

// refresh asks for the details, one request at a time.
async function refresh() {
  if (!selected || document.hidden) return;
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  const key = selected;
  try {
    const r = await fetch('/details?' + address(key) + (parts.has(key) ? '' : '&folded=1'));
    const answer = r.ok ? await r.json() : null;
    if (key === selected) {
      gone = Boolean(answer?.gone);
      if (!gone) details = answer ?? details;
      draw();
      if (answer?.group && !parts.has(key)) { // the selected part is shown
        wanted = key;
        unfold(answer.group);
      }
    }
  } catch { // the banner tells that the connection is lost
  }
  asking = false;
  if (again || key !== selected) {
    again = false;
    setTimeout(refresh, key === selected ? 200 : 0);
  }
}

// draw draws the panel.
function draw() {
  if (!selected) return;
  const now = h('aside', null,
    h('div.top', null,
      h('h2', {id: 'panel-title', tabindex: -1}, details?.title ?? title(parts.get(selected)?.e ?? h('p'))),
      h('button.close', {type: 'button', 'data-do': 'close', 'aria-label': 'Close', title: 'Close (Esc)'}, '×')),
    gone && h('p.gone', {role: 'status'}, 'It is gone. This is what was known last.'),
    details?.namespace && namespace(details), details?.port && port(details), details && commands(details.commands ?? []));
  const was = [...panel.childNodes], is = [...now.childNodes];
  is.forEach((child, i) => i < was.length ? morph(was[i], child) : panel.append(child));
  was.slice(is.length).forEach(child => child.remove());
}

const section = (name, all, one, list = 'ul') => all?.length ? [h('h3', null, name), h(list, null, all.map(one))] : [];
const go = (key, text, bad) => h(bad ? 'button.go.bad' : 'button.go', {type: 'button', 'data-go': key}, text);
const place = (d, end) => go('ns-' + end.inode, [d.titles?.[end.inode] ?? `net:[${end.inode}]`, end.link].filter(Boolean).join(' '));
const host = a => a.replace(/^0\.0\.0\.0:/, ':');
const portText = p => `${p.proto} ${host(p.host)}${p.last ? '-' + p.last : ''}`;

function namespace(d) {
  const n = d.namespace, links = everyLink ? n.links ?? [] : (n.links ?? []).slice(0, fewLinks), rest = (n.links?.length ?? 0) - links.length;
  const under = [`net:[${n.inode}]`, n.own && 'the program’s own', n.nsid != null && `id ${n.nsid}`, n.userns && `owned by user:[${n.userns}]`];
  return [
    h('p.under', null, under.filter(Boolean).join(' · ')),
    (d.here ?? []).filter(x => x.port.fault).slice(0, 5).map(x => h('p.fault', null, h('b', null, portText(x.port)), ' ', x.port.fault)),
    section('Notes', n.notes, x => h('li.off', null, x)),
    section('Names', n.names, x => h('li.mono', null, x)),
    section('Processes', n.processes?.slice(0, 100), x => h('li', null, h('span.mono', null, x.comm), ' ', h('span.mute', null, String(x.pid)))),
    n.processes?.length > 100 && h('p.mute', null, `and ${n.processes.length - 100} more`),
    section('Containers', n.containers, x => h('li', null, h('span.mono', {title: x.id}, x.id.slice(0, 12)), ' ', h('span.mute', null, x.runtime ?? ''))),
    links.length ? [h('h3', null, 'Links'), uncounted && h('p.off', null, `How much goes over them cannot be read: ${uncounted}`), h('ul', null, links.map(l => linkItem(d, l)))] : [],
    rest > 0 && h('button.all', {type: 'button', 'data-do': 'links'}, `Show ${plural(rest, 'more link')}`),
    section('Routes', n.routes, x => h('li.mono', null, route(x))),
    n.more > 0 && h('p.mute', null, `and ${plural(n.more, 'more route')}`),
    section('Listens on', n.listeners, x => h('li.mono', null, `${x.proto} ${host(x.addr)}`)),
    section('Ports', d.here, x => h('li', null, go('port-' + x.key, portText(x.port), x.port.fault), ' → ', h('span.mono', null, x.port.box), x.port.owner && h('span.mute', null, ` ${x.port.owner}`))),
    section('Networks', n.networks, x => h('li', null, h('b.mono', null, x.interface), ' ', h('span.mono', null, (x.subnets ?? []).join(' ')), ' ', h('span.mute', null, [...x.flags ?? [], x.table].join(', ')))),
  ];
}

const route = r => [/\/0$/.test(r.dst) ? (r.dst.includes(':') ? 'default (IPv6)' : 'default') : r.dst, r.via && `via ${r.via}`, r.dev && `dev ${r.dev}`].filter(Boolean).join(' ');

function linkItem(d, l) {
  const off = !l.up ? 'down' : !l.running ? 'no carrier' : '';
  const more = [l.mac, `MTU ${l.mtu}`, l.master && `port of ${l.master}`, l.vlans?.length && `VLAN ${l.vlans.join(' ')}`].filter(Boolean);
  return h('li.link', null,
    h('div.line', null, h('b', null, l.name), h('span.mute', null, [l.kind, l.detail].filter(Boolean).join(' ')), off && h('span.off', null, off),
      l.peer && h('span', null, h('span.mute', null, '↔ '), place(d, l.peer))),
    (l.addrs ?? []).map(a => h('div.mono', null, a)),
    h('div.mute.small', null, more.join(' · ')),
    curve(l.index));
}

function port(d) {
  const p = d.port, fact = (name, value) => value ? [h('dt', null, name), h('dd', null, value)] : [];
  return [
    p.fault ? h('p.fault', null, p.fault) : null,
    h('h3', null, 'Port'),
    h('dl', null,
      fact('Leads to', h('span.mono', null, p.box)), fact('Box', p.to && place(d, p.to)), fact('Owner', p.owner && h('span.mono', null, p.owner)),
      fact('On', place(d, {inode: d.host})), fact('Address', h('span.mono', null, p.host)), fact('Up to', p.last && h('span.mono', null, String(p.last))),
      fact('Protocol', h('span.mono', null, p.proto)), fact('Table', h('span.mono', null, p.table))),
  ];
}

const commands = all => section('The same in a terminal', all, c => h('li.command', null,
  h('code', {title: c.what}, c.line.split(' ').flatMap((w, i) => [i > 0 && ' ', h('span', null, w)])),
  h(c.line === copied ? 'button.done' : 'button', {type: 'button', 'data-do': 'copy', 'aria-label': `Copy the command for ${c.what}`}, c.line === copied ? 'Copied' : 'Copy')));

// copy copies a command. Where a page may not write to the clipboard, the command is selected.
async function copy(button) {
  const code = button.parentNode.querySelector('code');
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    if (!document.execCommand('copy')) return;
  }
  copied = code.textContent;
  draw();
  setTimeout(() => { copied = ''; draw(); }, 1500);
}

panel.addEventListener('click', event => {
  const b = event.target.closest('button');
  if (!b) return;
  if (b.dataset.go) select(b.dataset.go, event.detail === 0);
  switch (b.dataset.do) {
    case 'close': unselect(); break;
    case 'copy': copy(b); break;
    case 'links': everyLink = true; draw(); break;
  }
});
