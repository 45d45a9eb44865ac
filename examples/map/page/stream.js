// The stream: what the server sends, and what the page does when it is lost.
const banner = $('banner'), notice = $('notice'), log = $('log').querySelector('ol');
const unfolded = new Set(); // groups
let stream = null, lastId = '', lastAt = 0, lost = false, expected = true, delay = 0, retry = 0, silence = 0, opening = null;
let missing = 0, complained = false;
const silent = 45000; // the server is heard every 15 s
const patience = 700;

function connect() {
  clearTimeout(retry);
  stream?.close();
  const q = new URLSearchParams([...unfolded].map(g => ['unfold', g]));
  if (lastId) q.set('since', lastId);
  const s = stream = new EventSource('/events?' + q);
  const on = (event, what) => s.addEventListener(event, e => {
    if (s !== stream) return;
    heard();
    what(e);
  });
  on('whole', e => whole(e.lastEventId, JSON.parse(e.data)));
  on('change', e => changed(e.lastEventId, JSON.parse(e.data)));
  on('beat', () => {});
  s.onerror = () => { if (s === stream) lose(); };
  heard();
}

// heard notes that the server is there.
function heard() {
  clearTimeout(silence);
  silence = setTimeout(lose, silent);
}

// lose tries again, and says that the connection is lost unless it is back at once. Chromium ends all
// connections when the machine has another address, as it has with most boxes that come.
function lose() {
  stream?.close();
  stream = null;
  clearTimeout(silence);
  clearTimeout(retry);
  if (!lost) {
    lost = true;
    missing = setTimeout(complain, patience);
    connect();
    return;
  }
  delay = Math.min(5000, delay ? delay * 1.5 : 500);
  retry = setTimeout(connect, delay);
}

// complain says that the connection is lost.
function complain() {
  complained = true;
  banner.textContent = lastAt ? `The connection to the program is lost. This is the machine as it was at ${clock(lastAt)}. Trying again …`
    : 'There is no connection to the program. Trying again …';
  banner.hidden = false;
  state('lost', 'not connected');
}

function state(name, text) {
  $('state').dataset.state = name;
  if ($('state').textContent !== text) $('state').textContent = text;
}

// whole shows the whole picture: the first one, another one after a connection was lost, or one that
// unfolds something else.
function whole(id, m) {
  const first = !lastId, back = complained || !expected;
  const was = new Map([...parts].filter(([k]) => k.startsWith('ns-')).map(([k, p]) => [k, title(p.e)]));
  const done = change(m);
  if (opening && !first) { // what was unfolded has the focus that the count had
    const e = done.came.find(x => x.classList.contains('ns') || x.classList.contains('port'));
    if (opening.keyboard && e) focusOn(e);
  }
  opening = null;
  if (!first && back) {
    glow(done.flash);
    let lines = m.news ?? [], head = m.missed ? `Connected again. ${plural(m.missed, 'change')} meanwhile:` : 'Connected again. Nothing has changed meanwhile.';
    if (m.restarted) {
      lines = [...[...was].filter(([k]) => !parts.has(k)).map(([, t]) => `${t} went`), ...[...parts].filter(([k]) => k.startsWith('ns-') && !was.has(k)).map(([, p]) => `${title(p.e)} came`)];
      if (!lines.length && done.changed.length) lines = [plural(done.changed.length, 'part') + ' of the picture changed'];
      head = 'Connected again, to a new run of the program. ' + (lines.length ? 'Since then:' : 'It sees what the other one saw.');
    }
    tell(head, lines);
    record(m.at, lines);
  } else if (lost || m.news?.length) {
    glow(done.flash);
    record(m.at, m.news ?? []);
  }
  clearTimeout(missing);
  lost = complained = false;
  expected = true;
  delay = 0;
  if (m.host) {
    $('host').textContent = m.host;
    document.title = 'Map of ' + m.host;
  }
  after(id, m);
}

// changed shows what has changed.
function changed(id, m) {
  const done = change(m);
  glow(done.flash);
  record(m.at, m.news ?? []);
  after(id, m);
}

// after is what each message is followed by.
function after(id, m) {
  lastId = id;
  lastAt = m.at;
  const c = m.counts;
  morph($('counts'), h('p', {id: 'counts', title: (m.notes ?? []).join('\n') || null},
    [plural(c.namespaces, 'namespace'), plural(c.links, 'link'), plural(c.ports, 'port')].join(' · ') + (c.faults ? ' · ' : ''),
    c.faults > 0 && h('button', {type: 'button', title: 'Go to the next one'}, `${c.faults} with a fault`)));
  if (m.trouble) {
    banner.textContent = `The program cannot read the machine: ${m.trouble}. This is the machine as it was before. Trying again …`;
    banner.hidden = false;
    state('trouble', 'not current');
  } else {
    banner.hidden = true;
    state('live', 'live');
  }
  $('svg').href = '/map.svg' + (unfolded.size ? '?' + new URLSearchParams([...unfolded].map(g => ['unfold', g])) : '');
  $('fold').hidden = !unfolded.size;
  arrived();
  searchAgain();
  refresh();
}

// unfold draws a group whole from now on.
function unfold(group, keyboard) {
  if (unfolded.has(group)) return;
  unfolded.add(group);
  opening = {keyboard};
  connect();
}

// The count of faults leads to the next port with one.
$('counts').addEventListener('click', event => {
  if (!event.target.closest('button')) return;
  const all = [...root.querySelectorAll(':scope > .fault')], i = all.findIndex(e => e.id === selected);
  const e = all[(i + 1) % all.length];
  if (e) select(e.id, event.detail === 0);
});

$('fold').addEventListener('click', () => {
  unfolded.clear();
  opening = {};
  connect();
  map.focus();
});

// tell shows a notice until it is dismissed, or for a while.
let telling = 0;
function tell(head, lines) {
  clearTimeout(telling);
  const few = lines.slice(-6), more = lines.length - few.length;
  const close = h('button', {type: 'button'}, 'Dismiss');
  close.addEventListener('click', () => { notice.hidden = true; });
  notice.replaceChildren(h('div', null, h('p', null, head), h('ul', null, more > 0 && h('li', null, `… ${more} more`), few.map(l => h('li', null, l)))), close);
  notice.hidden = false;
  telling = setTimeout(() => { notice.hidden = true; }, 20000);
}

// record keeps changes in words, and says them to those who listen, a few at a time.
let unsaid = [], saying = 0;
const recorded = 100;
function record(at, lines) {
  if (!lines.length) return;
  log.querySelector('.none')?.remove();
  log.prepend(...lines.slice(-recorded).reverse().map(l => h('li', null, h('time', null, clock(at)), h('span', null, l))));
  while (log.children.length > recorded) log.lastChild.remove();
  unsaid = [...unsaid, ...lines].slice(-recorded);
  saying ||= setTimeout(() => {
    saying = 0;
    const few = unsaid.slice(0, 3), more = unsaid.length - few.length;
    $('said').textContent = few.join('. ') + (more > 0 ? `, and ${plural(more, 'more change')}` : '');
    unsaid = [];
  }, 1000);
}

// A tab that nobody sees does not keep one of the few connections that a browser has for a host.
let resting = 0;
document.addEventListener('visibilitychange', () => {
  clearTimeout(resting);
  if (document.hidden) {
    resting = setTimeout(() => {
      stream?.close();
      stream = null;
      for (const timer of [silence, retry, missing]) clearTimeout(timer);
      expected = false;
      state('waiting', 'paused');
    }, 60000);
  } else if (!stream) {
    connect();
  } else refresh();
});
addEventListener('pagehide', () => {
  stream?.close();
  stream = null;
  for (const timer of [silence, retry, missing]) clearTimeout(timer);
});
addEventListener('pageshow', event => { if (event.persisted) { expected = false; connect(); } });

connect();
