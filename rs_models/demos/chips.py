"""What pages share of classes: keys, the field that names a new one, and what can be done below."""

STYLE = """
.keys { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
.key { display: inline-flex; align-items: center; gap: 7px; padding: 5px 11px 5px 5px;
  border: 1px solid var(--hair); border-radius: 8px; background: var(--card); color: var(--ink);
  font-size: .95rem; cursor: pointer; max-width: 100%; }
.key span.name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  max-width: 12em; }
.key:hover { border-color: var(--c); }
.key kbd { background: var(--c); color: #fff; border-radius: 5px; min-width: 1.5em;
  padding: 2px 4px; text-align: center; font: 600 .86rem ui-monospace, monospace; border: 0;
  box-shadow: none; text-shadow: 0 0 3px rgba(0, 0, 0, .75); }
.key .n { color: var(--quiet); font-variant-numeric: tabular-nums; font-size: .84rem; }
.add { display: inline-flex; gap: 6px; margin: 0; }
.add input { border: 1px dashed var(--quiet); background: none; color: var(--ink);
  border-radius: 8px; padding: 6px 10px; width: 13.5em; font-size: .92rem; }
.top { display: flex; flex-wrap: wrap; gap: 2px 12px; justify-content: space-between;
  align-items: baseline; margin: 12px 0 8px; }
.top strong { font-size: 1.02rem; color: var(--ink); overflow-wrap: anywhere; }
.top .hint { color: var(--quiet); font-size: .82rem; }
.top kbd { border: 1px solid var(--hair); border-radius: 4px; padding: 0 4px;
  background: var(--card); font: .8rem ui-monospace, monospace; color: var(--ink);
  box-shadow: none; }
.act { border: 1px solid var(--hair); background: var(--card); color: var(--ink);
  padding: 8px 14px; border-radius: 8px; cursor: pointer; font-size: .94rem; }
.act.chief { background: var(--go); border-color: var(--go); color: #fff; font-weight: 600; }
.act:disabled { opacity: .45; cursor: default; }
.acts { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 12px; }
@media (max-width: 640px) { .top .hint { display: none; } .key { padding: 7px 12px 7px 7px; }
  .add { flex: 1 1 9em; } .add input { width: 100%; min-width: 0; font-size: 16px; }
  .act { flex: 1 1 44%; } }
"""

# Behind it stand `element`, `props` and what a page draws.
SCRIPT = """
const make = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
function naming(named) {
  const form = make('form', 'add'), field = make('input');
  field.maxLength = props.longest;
  field.placeholder = 'New class, then Enter';
  field.setAttribute('aria-label', 'Name of a new class');
  form.append(field);
  form.onsubmit = event => {
    event.preventDefault();
    named(field.value.trim().replace(/\\s+/g, ' '));
  };
  return form;
}
"""
