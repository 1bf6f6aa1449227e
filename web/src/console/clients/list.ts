import { byId, make } from '../../dom';
import { ask, type Page, type Query } from '../api';
import { after, day, duration, time } from '../format';
import { show, type Column } from '../table';
import type { Client } from './model';

const ROWS = 25;
/** Whose room and user are proven. */
const PROVEN = ['browser', 'livekit', 'rtcstats'];
const NOTHING = 'No client has reported in this time. A page reports with five lines of JavaScript (docs/clients.md), a Sora with its stats exporter (docs/collector.md).';

const fields = ['from', 'to', 'room', 'user', 'connection'] as const;
const input = (name: (typeof fields)[number]): HTMLInputElement => byId(name, HTMLInputElement);

let offset = 0;

/** Calls back whenever something else is to be shown. */
export function bindList(load: () => void): void {
  const parameters = new URLSearchParams(location.search);
  for (const name of fields) input(name).value = parameters.get(name) ?? '';
  if (location.search === '') input('from').value = day(6);
  const restart = () => {
    offset = 0;
    writeAddress();
    load();
  };
  for (const name of fields) input(name).addEventListener('change', restart);
  byId('filter', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    restart();
  });
  const turn = (rows: number) => () => {
    offset = Math.max(0, offset + rows);
    load();
  };
  byId('earlier', HTMLButtonElement).addEventListener('click', turn(-ROWS));
  byId('later', HTMLButtonElement).addEventListener('click', turn(ROWS));
}

/** A token for one room sees that room alone. */
export function narrowList(scope: string): void {
  input('room').disabled = scope !== '';
  if (scope) input('room').value = '';
}

/** The address carries the filter; never the token. */
function writeAddress(): void {
  const parameters = new URLSearchParams();
  for (const name of fields) if (input(name).value.trim()) parameters.set(name, input(name).value.trim());
  if (parameters.size === 0) parameters.set('from', '');
  history.replaceState(null, '', `?${parameters}`);
}

export async function loadList(signal: AbortSignal): Promise<void> {
  const text = (name: (typeof fields)[number]) => input(name).value.trim();
  const to = text('to');
  const query: Query = { from: text('from'), to: to ? after(to) : '', room: text('room'), user: text('user'), connection: text('connection') };
  const answer = await ask<Page & { clients: Client[] }>('clients', { ...query, limit: ROWS, offset }, signal);
  const columns: Column<Client>[] = [
    { title: 'Last report', cell: (row) => open(row, time(new Date(row.last_ms).toISOString())) },
    { title: 'Room', cell: (row) => name(row.channel_id) },
    { title: 'User', cell: (row) => name(row.client_id) },
    { title: 'Told by', cell: (row) => make('span', `badge ${PROVEN.includes(row.source) ? 'good' : ''}`, row.source) },
    { title: 'Lasted', cell: (row) => duration(Math.max(0, row.last_ms - row.first_ms)), number: true },
    { title: 'Reports', cell: (row) => String(row.reports), number: true },
    { title: 'Objects', cell: (row) => String(row.stored), number: true },
    { title: 'Rejected', cell: (row) => String(row.rejected), number: true },
    { title: 'Connection', cell: (row) => name(row.connection_id) },
  ];
  show(byId('clients', HTMLDivElement), columns, answer.clients, NOTHING, { testid: 'client-row' });
  const last = offset + answer.clients.length;
  byId('clients-count', HTMLParagraphElement).textContent = answer.total ? `${answer.total} in all` : '';
  byId('page', HTMLParagraphElement).textContent = answer.total ? `${offset + 1}–${last} of ${answer.total}` : '';
  byId('earlier', HTMLButtonElement).disabled = offset === 0;
  byId('later', HTMLButtonElement).disabled = last >= answer.total;
}

function open(row: Client, text: string): Node {
  const link = make('a', 'link', text);
  link.href = `/console/clients/${row.number}`;
  link.dataset.key = `client-${row.number}`;
  return link;
}

/** A name may be long; the whole of it is its title. */
export function name(text: string): Node | string {
  if (!text) return '–';
  const span = make('span', 'name', text);
  span.title = text;
  return span;
}
