"""The scene that is marked: a picture, classes with keys, and a cross that arrows move."""

from __future__ import annotations

from typing import Any

from . import chips
from .dense_scene import DenseScene
from .pictures import data_uri, jpeg, palette
from .pile_desk import MAX_CLASSES, MAX_NAME
from .scene_work import Work

# Colours by name come from the land cover; what is named later gets these in turn.
_LATER = 9

STYLE = """
.scene { position: relative; border-radius: 10px; overflow: hidden; cursor: crosshair;
  line-height: 0; border: 1px solid var(--hair); touch-action: manipulation; }
.scene img { width: 100%; height: auto; display: block; margin: 0; user-select: none; }
.scene:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
.dot { position: absolute; width: 13px; height: 13px; margin: -6.5px 0 0 -6.5px; border-radius: 50%;
  background: var(--c); border: 2px solid #fff; box-shadow: 0 0 0 1px rgba(0, 0, 0, .55);
  pointer-events: none; }
.areas { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.areas path { fill: var(--c); fill-opacity: .28; fill-rule: evenodd; stroke: #fff;
  stroke-width: 2px; vector-effect: non-scaling-stroke; filter: drop-shadow(0 0 1px #000); }
.areas .draft { fill-opacity: .16; stroke-dasharray: 5 4; }
.dot.corner { width: 9px; height: 9px; margin: -4.5px 0 0 -4.5px; }
.dot.first { width: 19px; height: 19px; margin: -9.5px 0 0 -9.5px; background: transparent;
  border: 3px solid var(--c); box-shadow: 0 0 0 2px #fff, 0 0 0 3px rgba(0, 0, 0, .55); }
.how { display: inline-flex; gap: 6px; }
.cross { position: absolute; width: 26px; height: 26px; margin: -13px 0 0 -13px; display: none;
  pointer-events: none; border: 2px solid #fff; border-radius: 50%;
  box-shadow: 0 0 0 1px #000, inset 0 0 0 1px #000; }
.scene:focus-visible .cross { display: block; }
.key.on { border-color: var(--c); box-shadow: 0 0 0 2px var(--c); }
"""

SCRIPT = (
    chips.SCRIPT
    + """
let work, brush = 0, cross = [0.5, 0.5], areas = false, draft = [], over = null;
const NEAR = 12;  // pixels around the first corner that close an area
const colour = i => work.colours[i % work.colours.length];
const send = (event, more) => trigger(event, { classes: work.classes, ...more });
function set(x, y) {
  if (brush === 'like') return send('like', { x, y });
  const name = work.classes[brush];
  if (name === undefined) return element.querySelector('.add input')?.focus();
  if (areas) return corner(x, y);
  work.marks.push({ name, rings: [[[x, y]]] });
  send('point', { x, y, name });
  draw();
}
function corner(x, y) {
  const size = element.querySelector('.scene').getBoundingClientRect();
  const far = ([a, b]) => Math.hypot((x - a) * size.width, (y - b) * size.height);
  if (draft.length > 2 && far(draft[0]) < NEAR) return close();
  if (draft.length && far(draft[draft.length - 1]) < 2) return;  // the second of a double click
  draft.push([x, y]);
  draw();
}
function close() {
  const name = work.classes[brush], corners = draft;
  if (corners.length < 3 || name === undefined) return;
  draft = [];
  work.marks.push({ name, rings: [corners] });
  send('area', { corners, name });
  draw();
}
function drop() { draft = []; draw(); }
function back() { if (draft.length) { draft.pop(); draw(); } else send('undo'); }
function mode(to) { areas = to; if (brush === 'like') brush = 0; drop(); }
function key(text, does, on, to, c) {
  const made = make('button', 'key' + (on ? ' on' : ''));
  made.type = 'button';
  made.style.setProperty('--c', c);
  made.setAttribute('aria-pressed', on);
  made.append(make('kbd', '', text), make('span', 'name', does));
  made.onclick = () => { take_up(to); };
  return made;
}
function take_up(to) { brush = to; if (to === 'like') draft = []; draw(); }
function keys() {
  const row = make('div', 'keys');
  row.setAttribute('role', 'group');
  row.setAttribute('aria-label', 'What a click does');
  work.classes.forEach((name, i) => {
    const made = key(i + 1, name, brush === i, i, colour(i));
    const count = work.marks.filter(mark => mark.name === name).length;
    made.append(make('span', 'n', count));
    row.append(made);
  });
  if (work.classes.length < props.most) {
    row.append(naming(name => {
      if (!name) return;
      if (!work.classes.includes(name)) work.classes.push(name);
      brush = work.classes.indexOf(name);
      draw();
    }));
  }
  row.append(key('S', 'what is like this?', brush === 'like', 'like', 'var(--quiet)'));
  return row;
}
function how() {
  const row = make('div', 'how');
  row.setAttribute('role', 'group');
  row.setAttribute('aria-label', 'What is marked');
  for (const [text, to] of [['Points', false], ['Areas', true]]) {
    const made = make('button', 'act' + (areas === to ? ' chief' : ''), text);
    made.type = 'button';
    made.setAttribute('aria-pressed', areas === to);
    made.onclick = () => mode(to);
    row.append(made);
  }
  return row;
}
const SVG = 'http://www.w3.org/2000/svg';
function outline(rings, c, name) {
  const path = document.createElementNS(SVG, 'path');
  const ring = corners => 'M' + corners.map(corner => corner.join(' ')).join('L');
  path.setAttribute('d', rings.map(ring).join('Z') + (name ? '' : 'Z'));
  path.style.setProperty('--c', c);
  if (name) path.setAttribute('class', name);
  return path;
}
function trace() {
  const c = colour(brush), rubber = over ? [...draft, over] : draft;
  element.querySelector('.areas .draft')?.remove();
  if (draft.length) element.querySelector('.areas').append(outline([rubber], c, 'draft'));
}
function scene() {
  const box = make('div', 'scene'), image = make('img'), mark = make('div', 'cross');
  const shapes = document.createElementNS(SVG, 'svg');
  box.tabIndex = 0;
  box.setAttribute('role', 'application');
  box.setAttribute('aria-label', areas
    ? 'The scene: arrows move the cross, Space sets a corner, Enter closes, Escape drops'
    : 'The scene: arrows move the cross, Enter sets a point');
  image.src = work.src;
  image.alt = 'The scene';
  image.draggable = false;
  shapes.setAttribute('class', 'areas');
  shapes.setAttribute('viewBox', '0 0 1 1');
  shapes.setAttribute('preserveAspectRatio', 'none');
  box.append(image, shapes);
  const at = (node, x, y) => {
    node.style.left = 100 * x + '%';
    node.style.top = 100 * y + '%';
    box.append(node);
  };
  const dot = (name, c, x, y) => {
    const made = make('div', name);
    made.style.setProperty('--c', c);
    at(made, x, y);
  };
  work.marks.forEach(({ name, rings }) => {
    const c = colour(Math.max(0, work.classes.indexOf(name)));
    if (rings[0].length > 1) shapes.append(outline(rings, c));
    else dot('dot', c, ...rings[0][0]);
  });
  draft.forEach(([x, y], i) => dot(i ? 'dot corner' : 'dot first', colour(brush), x, y));
  at(mark, ...cross);
  const where = event => {
    const size = box.getBoundingClientRect();
    const inside = v => Math.min(0.9999, Math.max(0, v));
    return [inside((event.clientX - size.left) / size.width),
      inside((event.clientY - size.top) / size.height)];
  };
  box.onclick = event => set(...where(event));
  box.onpointermove = event => {
    if (!draft.length || event.pointerType !== 'mouse') return;
    over = where(event);
    trace();
  };
  box.onpointerleave = () => { over = null; trace(); };
  return box;
}
function acts() {
  const row = make('div', 'acts');
  const act = (text, does, able, name) => {
    const button = make('button', 'act' + (name || ''), text);
    button.type = 'button';
    button.disabled = !able;
    button.onclick = does;
    row.append(button);
  };
  if (draft.length) {
    act('Close the area', close, draft.length > 2, ' chief');
    act('Drop it', drop, true);
  }
  act(draft.length ? 'Take the corner back' : 'Undo', back, draft.length || work.marks.length);
  if (!draft.length) act('Clear all', () => send('clear'), work.marks.length);
  return row;
}
function draw() {
  const inside = element.querySelector('.scene') === document.activeElement;
  const root = make('div'), top = make('div', 'top'), hint = make('span', 'hint');
  const does = areas
    ? [['1-9', 'class'], ['click or Space', 'a corner'], ['first corner or Enter', 'close'],
      ['Esc', 'drop'], ['arrows', 'move the cross'], ['P', 'points'], ['U', 'back']]
    : [['1-9', 'class'], ['click or Enter', 'set a point'], ['arrows', 'move the cross'],
      ['P', 'areas'], ['S', 'likeness'], ['U', 'undo']];
  for (const [name, what] of does) hint.append(make('kbd', '', name), ' ' + what + '  ');
  top.append(how(), hint);
  root.append(keys(), top, scene(), acts());
  element.replaceChildren(root);
  trace();
  if (inside) element.querySelector('.scene').focus({ preventScroll: true });
}
function take() {
  if (!props.value || !props.value.src) return;
  const before = work && work.src;
  work = JSON.parse(JSON.stringify(props.value));
  if (work.src !== before) draft = [];
  if (brush !== 'like') brush = Math.min(brush, Math.max(0, work.classes.length - 1));
  draw();
}
const pressed = event => {
  if (!element.isConnected) return document.removeEventListener('keydown', pressed);
  const at = event.target, box = element.querySelector('.scene');
  if (!work || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) || at.isContentEditable) return;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key >= '1' && event.key <= '9' && work.classes[event.key - 1] !== undefined) {
    take_up(event.key - 1);
  } else if (event.key === 's' || event.key === 'S') take_up('like');
  else if (event.key === 'p' || event.key === 'P') mode(!areas);
  else if (event.key === 'Escape' && draft.length) drop();
  else if ((event.key === 'u' || event.key === 'U' || event.key === 'Backspace')
    && (draft.length || work.marks.length)) back();
  else if (event.key === 'Enter' && draft.length && !/^(BUTTON|A)$/.test(at.tagName)) close();
  else if (at === box && event.key in moves) {
    const step = event.shiftKey ? 0.05 : 0.012;
    cross = cross.map((v, i) => Math.min(0.999, Math.max(0, v + step * moves[event.key][i])));
    const mark = box.querySelector('.cross');
    mark.style.left = 100 * cross[0] + '%';
    mark.style.top = 100 * cross[1] + '%';
    if (draft.length) { over = cross; trace(); }
  } else if (at === box && (event.key === ' ' || (event.key === 'Enter' && !areas)))
    set(...cross);
  else return;
  event.preventDefault();
};
document.addEventListener('keydown', pressed);
watch('value', take);
take();
"""
)


def sheet_props() -> dict[str, Any]:
    """Settings of the component beside its value."""
    return {"most": MAX_CLASSES, "longest": MAX_NAME}


def sheet_value(work: Work) -> dict[str, Any]:
    """A scene with its marks for the page to draw."""
    return {
        "src": picture_uri(work.scene),
        "classes": list(work.classes),
        "colours": colours(work.classes),
        "marks": [{"name": mark.name, "rings": mark.rings} for mark in work.marks],
    }


def picture_uri(scene: DenseScene) -> str:
    """The picture of a scene as an address that holds it."""
    return data_uri(jpeg(scene.picture))


def colours(names: list[str]) -> list[str]:
    """A colour a class, and for those that the user may still name, as CSS has them."""
    later = [f"class {number}" for number in range(len(names), _LATER)]
    return [f"rgb{colour}" for colour in palette([*names, *later])]
