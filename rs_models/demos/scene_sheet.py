"""The scene that points are set on: a picture, classes with keys, and a cross that arrows move."""

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
.cross { position: absolute; width: 26px; height: 26px; margin: -13px 0 0 -13px; display: none;
  pointer-events: none; border: 2px solid #fff; border-radius: 50%;
  box-shadow: 0 0 0 1px #000, inset 0 0 0 1px #000; }
.scene:focus-visible .cross { display: block; }
.key.on { border-color: var(--c); box-shadow: 0 0 0 2px var(--c); }
"""

SCRIPT = (
    chips.SCRIPT
    + """
let work, brush = 0, cross = [0.5, 0.5];
const colour = i => work.colours[i % work.colours.length];
const send = (event, more) => trigger(event, { classes: work.classes, ...more });
function set(x, y) {
  if (brush === 'like') return send('like', { x, y });
  const name = work.classes[brush];
  if (name === undefined) return element.querySelector('.add input')?.focus();
  work.points.push([x, y, name]);
  send('point', { x, y, name });
  draw(true);
}
function key(text, does, on, to, c) {
  const made = make('button', 'key' + (on ? ' on' : ''));
  made.type = 'button';
  made.style.setProperty('--c', c);
  made.setAttribute('aria-pressed', on);
  made.append(make('kbd', '', text), make('span', 'name', does));
  made.onclick = () => { brush = to; draw(); };
  return made;
}
function keys() {
  const row = make('div', 'keys');
  row.setAttribute('role', 'group');
  row.setAttribute('aria-label', 'What a click does');
  work.classes.forEach((name, i) => {
    const made = key(i + 1, name, brush === i, i, colour(i));
    const count = work.points.filter(point => point[2] === name).length;
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
function scene() {
  const box = make('div', 'scene'), image = make('img'), mark = make('div', 'cross');
  box.tabIndex = 0;
  box.setAttribute('role', 'application');
  box.setAttribute('aria-label', 'The scene: arrows move the cross, Enter sets a point');
  image.src = work.src;
  image.alt = 'The scene';
  image.draggable = false;
  box.append(image);
  const at = (node, x, y) => {
    node.style.left = 100 * x + '%';
    node.style.top = 100 * y + '%';
    box.append(node);
  };
  work.points.forEach(([x, y, name]) => {
    const dot = make('div', 'dot');
    dot.style.setProperty('--c', colour(Math.max(0, work.classes.indexOf(name))));
    at(dot, x, y);
  });
  at(mark, ...cross);
  box.onclick = event => {
    const size = box.getBoundingClientRect();
    const inside = v => Math.min(0.9999, Math.max(0, v));
    set(inside((event.clientX - size.left) / size.width),
      inside((event.clientY - size.top) / size.height));
  };
  return box;
}
function acts() {
  const row = make('div', 'acts');
  for (const [name, text] of [['undo', 'Undo'], ['clear', 'Clear the points']]) {
    const button = make('button', 'act', text);
    button.type = 'button';
    button.disabled = !work.points.length;
    button.onclick = () => send(name);
    row.append(button);
  }
  return row;
}
function draw(focus) {
  const inside = element.querySelector('.scene') === document.activeElement;
  const root = make('div'), top = make('div', 'top'), hint = make('span', 'hint');
  for (const [name, does] of [['1-9', 'class'], ['click or Enter', 'set a point'],
    ['arrows', 'move the cross'], ['S', 'likeness'], ['U', 'undo']])
    hint.append(make('kbd', '', name), ' ' + does + '  ');
  top.append(hint);
  root.append(keys(), top, scene(), acts());
  element.replaceChildren(root);
  if (inside) element.querySelector('.scene').focus({ preventScroll: true });
}
function take() {
  if (!props.value || !props.value.src) return;
  work = JSON.parse(JSON.stringify(props.value));
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
    brush = event.key - 1; draw();
  } else if (event.key === 's' || event.key === 'S') { brush = 'like'; draw(); }
  else if ((event.key === 'u' || event.key === 'U' || event.key === 'Backspace')
    && work.points.length) send('undo');
  else if (at === box && event.key in moves) {
    const step = event.shiftKey ? 0.05 : 0.012;
    cross = cross.map((v, i) => Math.min(0.999, Math.max(0, v + step * moves[event.key][i])));
    const mark = box.querySelector('.cross');
    mark.style.left = 100 * cross[0] + '%';
    mark.style.top = 100 * cross[1] + '%';
  } else if (at === box && (event.key === 'Enter' || event.key === ' ')) set(...cross);
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
    """A scene with its points for the page to draw."""
    return {
        "src": picture_uri(work.scene),
        "classes": list(work.classes),
        "colours": colours(work.classes),
        "points": [list(point) for point in work.points],
    }


def picture_uri(scene: DenseScene) -> str:
    """The picture of a scene as an address that holds it."""
    return data_uri(jpeg(scene.picture))


def colours(names: list[str]) -> list[str]:
    """A colour a class, and for those that the user may still name, as CSS has them."""
    later = [f"class {number}" for number in range(len(names), _LATER)]
    return [f"rgb{colour}" for colour in palette([*names, *later])]
