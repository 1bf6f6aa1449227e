/** Line drawings on a 24 × 24 grid. */
const PATHS = {
  mic: 'M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3ZM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3',
  micOff: 'M9 9.5V12a3 3 0 0 0 5 2.2M15 11V6a3 3 0 0 0-5.8-1M5.5 11.5a6.5 6.5 0 0 0 10.6 5M18.5 11.5a6.4 6.4 0 0 1-.5 2.4M12 18v3M4 4l16 16',
  camera: 'M4.5 7h8A1.5 1.5 0 0 1 14 8.5v7a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 3 15.5v-7A1.5 1.5 0 0 1 4.5 7ZM14 11l7-3.5v9L14 13',
  cameraOff: 'M10 7h2.5A1.5 1.5 0 0 1 14 8.5V11l7-3.5v9l-3-1.5M14 14v1.5a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 3 15.5v-7A1.5 1.5 0 0 1 4.5 7H6M4 4l16 16',
  screen: 'M4.5 5h15A1.5 1.5 0 0 1 21 6.5v8a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 14.5v-8A1.5 1.5 0 0 1 4.5 5ZM9 20h6M12 13V8.5M9.5 10.5 12 8l2.5 2.5',
  screenOff: 'M4.5 5h15A1.5 1.5 0 0 1 21 6.5v8a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 14.5v-8A1.5 1.5 0 0 1 4.5 5ZM9 20h6M10 8.5l4 4M14 8.5l-4 4',
  leave: 'M4 14.5c-1.5-2 0-4 2-5 4-2 8-2 12 0 2 1 3.5 3 2 5-.6.8-1.5.8-2.400.5l-1.700-.6c-.8-.3-1-1-1-1.700v-1.200c-2-.6-3.800-.6-5.800 0v1.200c0 .7-.2 1.400-1 1.700l-1.700.6c-.9.3-1.800.3-2.400-.5Z',
  sound: 'M4 9.5h3.5L12 6v12l-4.5-3.5H4ZM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11',
} as const;

export type IconName = keyof typeof PATHS;

/** An icon that screen readers skip: its button has a label. */
export function icon(name: IconName): SVGSVGElement {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add('icon');
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}
