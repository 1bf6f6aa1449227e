/** The element with this id; the page and its script are built together, so a missing one is a bug. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`no ${type.name} #${id}`);
  return element;
}

/** A new element with a class and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** Says something to screen readers; older lines go, so that the log stays short. */
export function announce(text: string): void {
  const log = byId('announcer', HTMLDivElement);
  log.append(make('p', '', text));
  while (log.childElementCount > 20) log.firstElementChild?.remove();
}
