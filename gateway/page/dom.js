// Making and finding elements. Texts are set as texts, never as markup.

export const by = (id) => document.getElementById(id);

/** An element with properties, attributes (`data-…`, `aria-…`, `role`, `tabindex`, `for`) and children. */
export function el(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A bar that is filled up to a share of 0 to 1. */
export function bar(share, className = "bar") {
  const made = el("span", { className, "aria-hidden": "true" }, el("i"));
  setShare(made, share);
  return made;
}

export function setShare(element, share) {
  element.style.setProperty("--share", String(Math.min(1, Math.max(0, share || 0))));
}

/** Arrow keys between the tabs of a list; `choose` is told the chosen tab. */
export function tabs(list, choose) {
  const all = () => [...list.querySelectorAll("[role=tab]")];
  const select = (tab) => {
    for (const each of all()) {
      each.setAttribute("aria-selected", String(each === tab));
      each.tabIndex = each === tab ? 0 : -1;
    }
    choose(tab);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const found = all();
    const next = found[(found.indexOf(document.activeElement) + step + found.length) % found.length];
    select(next);
    next.focus();
    event.preventDefault();
  });
  return select;
}

export const percent = (share) => `${Math.round(100 * share)} %`;
export const seconds = (time) => (time < 9.995 ? `${time.toFixed(2)} s` : `${time.toFixed(1)} s`);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
export const count = (number) => number.toLocaleString("en", { maximumFractionDigits: 0 });

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; number >= 1024 && place < units.length - 1; place += 1) number /= 1024;
  return `${number >= 100 || Number.isInteger(number) ? Math.round(number) : number.toFixed(1)} ${units[place]}`;
}
