// The search: the server finds, because it also knows what is folded.
const query = $('query'), found = $('found');
let matches = [], at = -1, total = 0;
let foundFor = ''; // the text that the matches are of
let asked = 0;     // numbers the requests
let wanted = '';   // the key of a part that is to be shown as soon as it is there

async function find(keep) {
  const q = query.value.trim(), number = ++asked;
  if (!q) {
    matches = [];
    at = -1;
    total = 0;
    foundFor = '';
    mark();
    return;
  }
  try {
    const r = await fetch('/search?q=' + encodeURIComponent(q));
    if (!r.ok || number !== asked) return;
    const answer = await r.json();
    if (number !== asked) return;
    const before = matches[at]?.key, order = new Map([...root?.children ?? []].map((e, i) => [e.id, i]));
    const place = m => order.get(m.key) ?? Infinity;
    matches = answer.matches.sort((a, b) => a.rank - b.rank || (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
    total = answer.count;
    foundFor = q;
    at = keep ? matches.findIndex(m => m.key === before) : -1;
    if (at < 0 && matches.length) at = 0;
    mark();
    if (!keep && matches.length) show();
  } catch { // the banner tells that the connection is lost
  }
}

// mark shows what matches, and how many there are.
function mark() {
  marks.match = new Set(matches.map(m => m.key));
  marks.current = new Set(at < 0 ? [] : [matches[at].key]);
  redress();
  const none = query.value.trim() && !total;
  found.classList.toggle('none', Boolean(none));
  found.textContent = none ? 'no match' : total ? `${at + 1} of ${total.toLocaleString('en')}` : '';
  found.title = matches[at] ? `${matches[at].title}: ${matches[at].why}` : '';
}

// show scrolls to the match, and unfolds it if it is folded.
function show() {
  const m = matches[at], e = parts.get(m.key)?.e;
  if (e) reveal(e, 'center');
  else if (m.group) {
    wanted = m.key;
    unfold(m.group);
  }
}

// step goes to another match.
function step(by) {
  if (!matches.length) return;
  at = (at + by + matches.length) % matches.length;
  mark();
  show();
}

// arrived shows the part that was waited for.
function arrived() {
  const e = wanted && parts.get(wanted)?.e;
  if (!e) return;
  wanted = '';
  reveal(e, 'center');
}

let typing = 0, fresh = 0;
query.addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(find, 60);
});
$('search').addEventListener('submit', event => event.preventDefault());

// searchAgain finds once more after a change.
function searchAgain() {
  if (!query.value.trim() || fresh) return;
  fresh = setTimeout(() => { fresh = 0; find(true); }, 500);
}
