// Mouse and keys.
const key = e => e.id;

// activate opens what a part has: its details, or what is folded.
function activate(e, keyboard) {
  if (e.dataset.group != null) unfold(e.dataset.group, keyboard);
  else select(key(e), keyboard);
}

map.addEventListener('click', event => {
  if (String(getSelection())) return; // a text was selected, and nothing meant
  const e = event.target.closest('g[tabindex]');
  if (e) activate(e, false);
});

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const here = document.activeElement, field = here === query, part = here?.closest?.('#map g[tabindex]');
  switch (event.key) {
    case '/':
      if (field) return;
      query.focus();
      query.select();
      break;
    case 'Escape':
      if ($('log').open) {
        $('log').open = false;
        $('log').querySelector('summary').focus();
      } else if (field && query.value) {
        query.value = '';
        find();
      } else if (selected) unselect();
      else if (field) query.blur();
      else return;
      break;
    case 'Enter':
      if (field) {
        clearTimeout(typing);
        if (foundFor === query.value.trim()) step(event.shiftKey ? -1 : 1);
        else find();
      } else if (part) activate(part, true);
      else return;
      break;
    case ' ':
      if (!part) return;
      activate(part, true);
      break;
    case 'ArrowUp': case 'ArrowDown': case 'ArrowLeft': case 'ArrowRight':
      if (field && event.key === 'ArrowDown' && matches[at]) parts.get(matches[at].key)?.e.focus();
      else if (!part || !move(part, event.key)) return;
      break;
    case 'Home': case 'End': {
      if (!part) return;
      const all = root.querySelectorAll(':scope > [tabindex]');
      focusOn(all[event.key === 'Home' ? 0 : all.length - 1]);
      break;
    }
    default:
      return;
  }
  event.preventDefault();
});

// move moves the focus to the next part in a direction: near in that direction, and little aside.
function move(from, arrow) {
  const a = body(from).getBoundingClientRect(), across = arrow === 'ArrowLeft' || arrow === 'ArrowRight';
  const sign = arrow === 'ArrowRight' || arrow === 'ArrowDown' ? 1 : -1;
  let best = null, least = Infinity;
  for (const e of root.querySelectorAll(':scope > [tabindex]')) {
    if (e === from) continue;
    const b = body(e).getBoundingClientRect();
    const [a1, a2, b1, b2] = across ? [a.left, a.right, b.left, b.right] : [a.top, a.bottom, b.top, b.bottom];
    const [c1, c2, d1, d2] = across ? [a.top, a.bottom, b.top, b.bottom] : [a.left, a.right, b.left, b.right];
    const ahead = sign > 0 ? b1 - a2 : a1 - b2;
    if (ahead < -1) continue;
    const aside = Math.max(0, d1 - c2, c1 - d2);
    const cost = ahead + 3 * aside + Math.abs(d1 - c1) / 50;
    if (cost < least) [best, least] = [e, cost];
  }
  if (best) focusOn(best);
  return best;
}

function focusOn(e) {
  e.focus({preventScroll: true});
  reveal(e);
}

document.addEventListener('click', event => {
  if (!event.target.closest('#log')) $('log').open = false;
});
