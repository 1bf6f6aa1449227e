import { make } from '../dom';
import type { Usage } from './api';
import { after, minutes, size } from './format';

/** More bars than this are thinner than a line. */
const BARS_MAX = 92;
/** Days written below the bars. */
const LABELS_MAX = 8;

/** Bars of payload by day; days without a session have an empty place. */
export function draw(place: HTMLElement, days: Usage[], onDay: (day: string) => void): void {
  const all = filled(days).slice(-BARS_MAX);
  const payload = (day: Usage): number => day.peer_rx_bytes + day.peer_tx_bytes;
  const most = Math.max(1, ...all.map(payload));
  place.hidden = all.length === 0;
  place.ariaLabel = `Payload by day: ${all.length} days, at most ${size(most)} a day`;
  const every = Math.ceil(all.length / LABELS_MAX);
  const bars = all.map((day, place) => {
    const bar = make('div', 'bar', part('tx', day.peer_tx_bytes / most), part('rx', day.peer_rx_bytes / most));
    const column = make('div', 'column', bar);
    if (place % every === 0) column.append(make('span', 'tick', day.key.slice(5)));
    column.title = `${day.key}: ${size(payload(day))}, ${minutes(day.held_ms)} minutes, ${day.sessions} sessions`;
    column.addEventListener('click', () => onDay(day.key));
    return column;
  });
  place.replaceChildren(make('span', 'most', size(most)), make('div', 'bars', ...bars));
}

function part(kind: string, share: number): HTMLElement {
  const part = make('div', kind);
  part.style.height = `${(share * 100).toFixed(2)}%`;
  return part;
}

function filled(days: Usage[]): Usage[] {
  const known = new Map(days.map((day) => [day.key, day]));
  const first = days[0]?.key;
  const last = days.at(-1)?.key;
  if (!first || !last) return [];
  const all: Usage[] = [];
  const nothing = { sessions: 0, relayed: 0, allocations: 0, held_ms: 0, active_ms: 0, price: 0, quality: '' };
  const none = { client_rx_bytes: 0, client_tx_bytes: 0, peer_rx_bytes: 0, peer_tx_bytes: 0 };
  // Begins so late that there are not more than can be drawn.
  let key = first;
  const earliest = new Date(Date.parse(last) - BARS_MAX * 86_400_000).toISOString().slice(0, 10);
  if (key < earliest) key = earliest;
  for (; key <= last; key = after(key)) all.push(known.get(key) ?? { key, ...nothing, ...none });
  return all;
}
