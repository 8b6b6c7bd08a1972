"""The sheet of tiles that is labelled by keys, and what the page says of a desk, as HTML."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from . import chips
from .pictures import data_uri
from .pile_desk import MAX_CLASSES, MAX_NAME, Desk

# Told apart by any eye on light and on dark ground; one a key.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#8F6BD1", "#9A8F00", "#9B6A43"),
)
UNSURE = "#8a8a8a"
_SHOWN = 18  # tiles a class on the wall

STYLE = """
.tiles { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 8px; }
.tile { position: relative; padding: 0; border: 0; background: var(--hair); border-radius: 8px;
  overflow: hidden; aspect-ratio: 1; cursor: pointer; outline: 3px solid transparent;
  outline-offset: -3px; }
.tile img { width: 100%; height: 100%; object-fit: cover; display: block; margin: 0; }
.tile.labelled { box-shadow: inset 0 0 0 4px var(--c); }
.tile.labelled img { clip-path: inset(4px round 5px); }
.tile.now { outline-color: var(--mark); box-shadow: 0 0 0 3px var(--mark); z-index: 1; }
.tag { position: absolute; left: 6px; bottom: 6px; max-width: calc(100% - 12px); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; padding: 1px 7px; border-radius: 5px;
  background: var(--c); color: #fff; font-size: .8rem; font-weight: 600; }
.tag.guess { background: rgba(15, 18, 15, .66); font-weight: 400; }
@media (max-width: 640px) { .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 6px; } }
"""

SCRIPT = (
    chips.SCRIPT
    + """
const colours = props.colours;
let sheet, now = 0, clock = 0;
const colour = name => colours[Math.max(0, sheet.classes.indexOf(name)) % colours.length];
const send = event => trigger(event, { classes: sheet.classes,
  marks: sheet.tiles.filter(tile => tile.at).map(tile => [tile.row, tile.label, tile.at]) });
function set(at, name) {
  if (!sheet.tiles[at]) return;
  sheet.tiles[at].label = name;
  sheet.tiles[at].at = clock = Math.max(clock + 1, Date.now());
  sheet.undo = true;
  const order = sheet.tiles.map((_, i) => (at + 1 + i) % sheet.tiles.length);
  const next = order.find(i => sheet.tiles[i].label === null);
  now = name === null || next === undefined ? at : next;
  send('mark'); draw();
}
function keys() {
  const row = make('div', 'keys');
  row.setAttribute('role', 'group');
  row.setAttribute('aria-label', 'Classes and their keys');
  sheet.classes.forEach((name, i) => {
    const key = make('button', 'key');
    key.type = 'button';
    key.style.setProperty('--c', colours[i % colours.length]);
    key.title = 'Label the marked tile; double click to rename';
    const on = sheet.tiles.filter(tile => tile.label === name).length;
    key.append(make('kbd', '', i + 1), make('span', 'name', name),
      make('span', 'n', on + (sheet.elsewhere[name] || 0)));
    key.onclick = () => set(now, name);
    key.ondblclick = () => rename(row, key, name);
    row.append(key);
  });
  if (sheet.classes.length < props.most) row.append(adding());
  return row;
}
function adding() {
  return naming(name => {
    if (name && !sheet.classes.includes(name)) sheet.classes.push(name);
    draw();
    send('mark');
    const again = element.querySelector('.add input');
    if (again && name) again.focus();
  });
}
function rename(row, key, name) {
  const field = make('input');
  field.value = name;
  field.maxLength = props.longest;
  field.setAttribute('aria-label', 'New name of ' + name);
  const form = make('form', 'add');
  form.append(field);
  form.onsubmit = event => {
    event.preventDefault();
    const words = { old: name, new: field.value, classes: sheet.classes };
    if (field.value.trim()) trigger('rename', words);
  };
  row.replaceChild(form, key);
  field.focus();
}
function tiles() {
  const grid = make('div', 'tiles');
  sheet.tiles.forEach((tile, i) => {
    const box = make('button', 'tile');
    box.classList.toggle('labelled', tile.label !== null);
    box.classList.toggle('now', i === now);
    box.type = 'button';
    box.dataset.row = tile.row;
    box.tabIndex = i === now ? 0 : -1;
    box.setAttribute('aria-pressed', i === now);
    box.setAttribute('aria-label', 'Tile ' + (i + 1) + ', ' + (tile.label || 'no label'));
    const image = make('img');
    image.src = tile.src;
    image.alt = '';
    box.append(image);
    if (tile.label) {
      box.style.setProperty('--c', colour(tile.label));
      box.append(make('span', 'tag', tile.label));
    } else if (tile.guess) box.append(make('span', 'tag guess', tile.guess + '?'));
    box.onclick = () => { now = i; draw(true); };
    grid.append(box);
  });
  return grid;
}
function acts() {
  const row = make('div', 'acts'), done = sheet.tiles.every(tile => tile.label !== null);
  const kinds = new Set(sheet.tiles.map(tile => tile.label).filter(name => name !== null));
  Object.keys(sheet.elsewhere).forEach(name => kinds.add(name));
  for (const [name, text, main, off] of [
    ['suggested', 'Next twelve', done, false], ['doubtful', 'In most doubt', false, kinds.size < 2],
    ['undo', 'Undo', false, !sheet.undo], ['over', 'Start over', false, false]]) {
    const button = make('button', 'act' + (main ? ' chief' : ''), text);
    button.type = 'button';
    button.disabled = off;
    button.onclick = () => send(name);
    row.append(button);
  }
  return row;
}
function draw(focus) {
  const inside = element.contains(document.activeElement)
    && document.activeElement.tagName === 'BUTTON';
  const root = make('div', 'sheet'), top = make('div', 'top'), hint = make('span', 'hint');
  for (const [key, does] of [['1-9', 'label'], ['arrows', 'move'], ['space', 'take the guess'],
    ['0', 'clear'], ['U', 'undo'], ['Enter', 'next twelve']])
    hint.append(make('kbd', '', key), ' ' + does + '  ');
  top.append(make('strong', '', sheet.title), hint);
  root.append(keys(), top, tiles(), acts());
  element.replaceChildren(root);
  if (focus || inside) element.querySelector('.tile.now')?.focus({ preventScroll: true });
}
function take() {
  if (!props.value || !props.value.tiles) return;
  sheet = JSON.parse(JSON.stringify(props.value));
  now = Math.max(0, sheet.tiles.findIndex(tile => tile.label === null));
  draw();
}
const pressed = event => {
  if (!element.isConnected) return document.removeEventListener('keydown', pressed);
  const at = event.target, own = element.contains(at);
  if (!sheet || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) || at.isContentEditable) return;
  const onOther = at.closest && at.closest('button, a, [role=listbox], [role=option]');
  if (onOther && !(own && at.classList.contains('tile')) && /^( |Enter)$/.test(event.key)) return;
  const columns = getComputedStyle(element.querySelector('.tiles')).gridTemplateColumns
    .split(' ').length;
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const guess = sheet.tiles[now] && sheet.tiles[now].guess;
  if (event.key >= '1' && event.key <= '9' && sheet.classes[event.key - 1])
    set(now, sheet.classes[event.key - 1]);
  else if (event.key === '0' || event.key === 'Delete') set(now, null);
  else if (event.key === ' ' && guess) set(now, guess);
  else if (event.key === 'u' || event.key === 'U' || event.key === 'Backspace') send('undo');
  else if (event.key === 'Enter') send('suggested');
  else if (event.key in moves) {
    const to = now + moves[event.key];
    if (to >= 0 && to < sheet.tiles.length) { now = to; draw(true); }
  } else return;
  event.preventDefault();
};
document.addEventListener('keydown', pressed);
watch('value', take);
take();
"""
)

WALL_STYLE = """
.group { margin: 0 0 14px; }
.group h3 { font-size: .95rem; margin: 0 0 6px; font-weight: 600; color: var(--ink);
  display: flex; gap: 8px; align-items: center; }
.group h3 i { width: .9em; height: .9em; border-radius: 3px; background: var(--c); flex: none; }
.group h3 small { color: var(--quiet); font-weight: 400; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(56px, 1fr)); gap: 4px; }
.one { padding: 0; border: 0; background: var(--hair); border-radius: 5px; overflow: hidden;
  cursor: pointer; aspect-ratio: 1; }
.one img { width: 100%; height: 100%; object-fit: cover; display: block; margin: 0; }
.one:hover { outline: 3px solid var(--mark); outline-offset: -3px; }
@media (max-width: 640px) { .many { grid-template-columns: repeat(6, minmax(0, 1fr)); } }
"""
WALL_SCRIPT = """
element.addEventListener('click', event => {
  const one = event.target.closest('[data-row]');
  if (one) trigger('look', { row: Number(one.dataset.row) });
});
"""

PANEL_STYLE = """
.panel { border: 1px solid var(--hair); border-radius: 10px; background: var(--card);
  padding: 14px 16px; color: var(--ink); }
.panel p { margin: 0; line-height: 1.45; }
.panel .figure { font-size: 2.3rem; font-weight: 700; letter-spacing: -.02em; line-height: 1.1; }
.panel .figure small { font-size: .95rem; font-weight: 400; color: var(--quiet); }
.range { position: relative; height: 10px; border-radius: 5px; background: var(--hair);
  margin: 10px 0 8px; }
.range i { position: absolute; top: 0; bottom: 0; border-radius: 5px; background: var(--go);
  opacity: .35; }
.range b { position: absolute; top: -3px; bottom: -3px; width: 4px; margin-left: -2px;
  border-radius: 2px; background: var(--go); }
.panel .more { color: var(--quiet); font-size: .88rem; }
.shares { display: grid; grid-template-columns: minmax(4.5em, max-content) 1fr max-content;
  gap: 5px 10px; align-items: center; margin-top: 12px; font-size: .9rem; }
.shares .line { height: 12px; border-radius: 3px; background: var(--c); min-width: 2px; }
.shares .n { text-align: right; font-variant-numeric: tabular-nums; color: var(--quiet); }
.shares span:first-child, .shares .name { overflow-wrap: anywhere; }
"""


def sheet_props() -> dict[str, Any]:
    """Settings of the sheet's component beside its value."""
    return {"colours": COLOURS, "most": MAX_CLASSES, "longest": MAX_NAME}


def sheet_value(desk: Desk) -> dict[str, Any]:
    """The tiles of a desk's sheet for the page to draw."""
    answers = desk.answers()
    elsewhere: dict[str, int] = {}
    for row, name in desk.labels.items():
        if row not in desk.sheet:
            elsewhere[name] = elsewhere.get(name, 0) + 1
    tiles = [
        {
            "row": row,
            "src": data_uri(desk.pile.pictures[row]),
            "label": desk.labels.get(row),
            "guess": answers.names[answers.probabilities[row].argmax()] if answers else None,
        }
        for row in desk.sheet
    ]
    return {
        "title": desk.title,
        "classes": list(desk.classes),
        "tiles": tiles,
        "elsewhere": elsewhere,
        "undo": desk.can_undo,
    }


def panel(desk: Desk) -> str:
    """How far the answers can be trusted, and how many tiles are of each class."""
    answers, labelled = desk.answers(), len(desk.labels)
    if answers is None:
        return (
            "<section class='panel' aria-live='polite'><p class='figure'>No answers yet</p>"
            "<p class='more'>Name two classes, label a tile of each: the rest is answered at once."
            "</p></section>"
        )
    low, high = answers.interval
    said = (
        f"<p class='figure'>{answers.accuracy:.0f} % <small>estimated accuracy</small></p>"
        f"<div class='range'><i style='left:{low:.0f}%;width:{high - low:.0f}%'></i>"
        f"<b style='left:{answers.accuracy:.0f}%'></b></div>"
        f"<p class='more'>Most likely {low:.0f} to {high:.0f} %, from {labelled} labelled tiles, "
        "each asked of a classifier that had not seen it."
    )
    if labelled < 3 * len(answers.names):
        said += " So few labels say little about themselves: label on."
    checked = desk.checked()
    if checked is not None:
        right, count = checked
        said += (
            f" The example knows its answers: <b>{right / count:.0%}</b> of the {count} "
            "unlabelled tiles are right."
        )
    bars, largest = [], max(answers.counts().values())
    for name, count in answers.counts().items():
        colour = COLOURS[desk.classes.index(name)] if name in desk.classes else UNSURE
        bars.append(
            f"<span class='name'>{html.escape(name)}</span><span class='line' style='--c:{colour};"
            f"width:{100 * count / largest:.0f}%'></span><span class='n'>{count}</span>"
        )
    return (
        f"<section class='panel' aria-live='polite'>{said}</p>"
        f"<div class='shares'>{''.join(bars)}</div></section>"
    )


def wall(desk: Desk) -> str:
    """The tiles by class, the surest first, and those in doubt."""
    answers = desk.answers()
    if answers is None:
        return ""
    best, share = answers.probabilities.argmax(1), answers.probabilities.max(1)
    groups = []
    for number, name in enumerate(answers.names):
        rows = np.flatnonzero((best == number) & (answers.classes >= 0))
        rows = rows[np.argsort(-share[rows], kind="stable")]
        groups.append((name, COLOURS[desk.classes.index(name)], rows))
    groups.sort(key=lambda group: -len(group[2]))
    groups.append(("in most doubt", UNSURE, np.array(desk.doubtful(2 * _SHOWN), int)))
    return "".join(_group(desk, *group, share) for group in groups)


def _group(desk: Desk, name: str, colour: str, rows: np.ndarray, share: np.ndarray) -> str:
    tiles = "".join(
        f"<button type='button' class='one' data-row='{row}' "
        f"title='{html.escape(desk.pile.index.names[row], quote=True)}, {share[row]:.0%}' "
        f"aria-label='Tiles like {html.escape(desk.pile.index.names[row], quote=True)}'>"
        f"<img src='{data_uri(desk.pile.small[row])}' alt=''></button>"
        for row in rows[:_SHOWN]
    )
    return (
        f"<section class='group'><h3 style='--c:{colour}'><i></i>{html.escape(name)} "
        f"<small>{len(rows)} tiles</small></h3><div class='many'>{tiles}</div></section>"
    )


def scene_map(desk: Desk) -> tuple[np.ndarray, np.ndarray] | None:
    """The scene and its map of classes; None where the pile is no scene or has no answers."""
    scene, answers = desk.pile.scene, desk.answers()
    if scene is None:
        return None
    drawn = scene.picture.astype(np.float32)
    if answers is not None:
        for row, (left, top, right, bottom) in enumerate(scene.boxes):
            number = answers.classes[row]
            if number < 0:
                continue
            name = answers.names[number]
            colour = bytes.fromhex(COLOURS[desk.classes.index(name)][1:])
            part = drawn[top:bottom, left:right]
            part[:] = 0.45 * part + 0.55 * np.array(list(colour), np.float32)
    return scene.picture, drawn.round().astype(np.uint8)
