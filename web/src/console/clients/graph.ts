import { make } from '../../dom';

/** A value at a time, in milliseconds since 1970. */
export type Sample = [time: number, value: number];

const WIDTH = 300;
const HEIGHT = 84;
const SVG = 'http://www.w3.org/2000/svg';

/** A line of one value over a span of time; where a finger or a mouse is, it says the value there. */
export function graph(name: string, samples: Sample[], [from, to]: Sample): HTMLElement {
  const values = samples.map(([, value]) => value);
  const most = Math.max(...values);
  // A counter that hardly moves is not drawn as if it leapt.
  const least = Math.min(...values, most === 0 ? 0 : most);
  const spread = most - least || 1;
  const x = (time: number): number => ((time - from) / (to - from || 1)) * WIDTH;
  const y = (value: number): number => (most === least ? HEIGHT / 2 : HEIGHT - 3 - ((value - least) / spread) * (HEIGHT - 6));
  const svg = part('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const points = samples.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
  const cursor = part('line', { y1: '0', y2: String(HEIGHT), class: 'cursor' });
  svg.append(part('polyline', { points, class: 'line' }), cursor);
  const now = make('output', 'now', number(values.at(-1) ?? 0));
  const caption = make('figcaption', '', make('span', 'what', name), now);
  const plot = make('div', 'plot', make('span', 'high', number(most)), make('span', 'low', most === least ? '' : number(least)));
  plot.prepend(svg);
  plot.addEventListener('pointermove', (event) => {
    const box = plot.getBoundingClientRect();
    const time = from + ((event.clientX - box.left) / box.width) * (to - from);
    const [at, value] = samples.reduce((best, sample) => (Math.abs(sample[0] - time) < Math.abs(best[0] - time) ? sample : best));
    cursor.setAttribute('x1', String(x(at)));
    cursor.setAttribute('x2', String(x(at)));
    plot.classList.add('pointed');
    now.textContent = `${number(value)} at ${new Date(at).toISOString().slice(11, 19)}`;
  });
  plot.addEventListener('pointerleave', () => {
    plot.classList.remove('pointed');
    now.textContent = number(values.at(-1) ?? 0);
  });
  const figure = make('figure', 'graph', caption, plot);
  figure.dataset.testid = 'graph';
  figure.dataset.name = name;
  caption.title = name;
  return figure;
}

/** At most six digits that mean something. */
export function number(value: number): string {
  if (Number.isInteger(value)) return value.toLocaleString('en-US').replaceAll(',', '\u202f');
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US').replaceAll(',', '\u202f');
  return String(Number(value.toPrecision(4)));
}

function part(name: string, attributes: Record<string, string>): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
