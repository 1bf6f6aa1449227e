import './console.css';
import { byId, make } from '../dom';
import { ask, download } from './api';
import type { Allocation, Health, Input, Page, Query, Session, Sum, Usage } from './api';
import { draw } from './chart';
import { after, day, duration, minutes, money, rate, size, time } from './format';
import { bindToken, complain, openView, say, showScope } from './shell';
import { show, type Column, type Order } from './table';

const LIVE_EVERY_MS = 2_000;
const REST_EVERY_MS = 30_000;
const ROWS = 25;
/** Open allocations shown; the count says how many there are. */
const LIVE_ROWS = 200;
/** Days of one answer, the API's maximum. */
const DAYS = 1_000;

const WIDEN = 'Choose “All”, or another user or room.';
const SET_UP = 'Turn on Fanlight’s own server (turn.enabled), or point coturn’s redis-statsdb at fanlight.coturn.listen.';

const from = byId('from', HTMLInputElement);
const to = byId('to', HTMLInputElement);
const user = byId('user', HTMLInputElement);
const room = byId('room', HTMLInputElement);
const perGb = byId('per-gb', HTMLInputElement);
const perMinute = byId('per-minute', HTMLInputElement);

let order: Order = { sort: 'started', descending: true };
let offset = 0;
let total = 0;
/** Answers to older questions are not wanted any more. */
let wanted = new AbortController();

readAddress();
for (const input of [from, to, user, room, perGb, perMinute]) input.addEventListener('change', restart);
byId('filter', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  restart();
});
for (const chip of document.querySelectorAll<HTMLButtonElement>('[data-days]')) {
  chip.addEventListener('click', () => choosePeriod(Number(chip.dataset.days)));
}
byId('earlier', HTMLButtonElement).addEventListener('click', () => turn(-ROWS));
byId('later', HTMLButtonElement).addEventListener('click', () => turn(ROWS));
for (const name of ['usage', 'sessions']) {
  byId(`${name}-csv`, HTMLAnchorElement).addEventListener('click', (event) => {
    event.preventDefault();
    const query = name === 'usage' ? usageQuery() : { ...filter(), ...orderQuery() };
    download(`turn/${name}`, query).catch(complain);
  });
}
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void refresh(true);
});
setInterval(() => void refresh(false), LIVE_EVERY_MS);
setInterval(() => void refresh(true), REST_EVERY_MS);
bindToken(start);
void start();

/** Shows what this token may see, or asks for one. */
async function start(): Promise<void> {
  const scope = showScope();
  byId('inputs-panel', HTMLElement).hidden = scope !== '';
  room.disabled = scope !== '';
  if (scope) room.value = '';
  await load(true);
}

async function refresh(everything: boolean): Promise<void> {
  if (!document.hidden && !byId('view', HTMLElement).hidden) await load(everything);
}

/** The filter changed: everything is asked for anew, from the first page. */
function restart(): void {
  offset = 0;
  writeAddress();
  void load(true);
}

async function load(everything: boolean): Promise<void> {
  if (everything) {
    wanted.abort();
    wanted = new AbortController();
  }
  const { signal } = wanted;
  try {
    const asked: Promise<void>[] = [loadLive(signal)];
    if (!byId('inputs-panel', HTMLElement).hidden) asked.push(loadInputs(signal));
    if (everything) asked.push(loadUsage(signal), loadSessions(signal));
    await Promise.all(asked);
    openView(true);
    say('');
  } catch (error) {
    if (!signal.aborted) complain(error);
  }
}

// What is asked for

function people(): Query {
  return { user: user.value.trim(), room: room.value.trim() };
}

function filter(): Query {
  return { ...people(), from: from.value, to: to.value ? after(to.value) : '' };
}

function orderQuery(): Query {
  return { sort: order.sort, order: order.descending ? 'desc' : 'asc' };
}

function usageQuery(): Query {
  return { ...filter(), by: 'day', price_per_gb: perGb.value, price_per_minute: perMinute.value };
}

function choosePeriod(days: number): void {
  from.value = days ? day(days - 1) : '';
  to.value = '';
  restart();
}

function chooseDay(date: string): void {
  const chosen = from.value === date && to.value === date;
  from.value = chosen ? '' : date;
  to.value = chosen ? '' : date;
  restart();
}

function turn(rows: number): void {
  offset = Math.max(0, offset + rows);
  loadSessions(wanted.signal).catch(complain);
}

/** The address carries the filter, so that a view can be kept and sent on; never the token. */
function readAddress(): void {
  const parameters = new URLSearchParams(location.search);
  const inputs: [HTMLInputElement, string][] = [[from, 'from'], [to, 'to'], [user, 'user'], [room, 'room'], [perGb, 'gb'], [perMinute, 'minute']];
  for (const [input, name] of inputs) input.value = parameters.get(name) ?? '';
  if (location.search === '') from.value = day(6);
}

function writeAddress(): void {
  const parameters = new URLSearchParams();
  const values = { from: from.value, to: to.value, user: user.value, room: room.value, gb: perGb.value, minute: perMinute.value };
  for (const [name, value] of Object.entries(values)) if (value.trim()) parameters.set(name, value.trim());
  if (parameters.size === 0) parameters.set('from', '');
  history.replaceState(null, '', `?${parameters}`);
}

// What is shown

async function loadUsage(signal: AbortSignal): Promise<void> {
  const answer = await ask<Page & { sum: Sum; usage: Usage[] }>('turn/usage', { ...usageQuery(), limit: DAYS }, signal);
  const priced = Number(perGb.value) > 0 || Number(perMinute.value) > 0;
  showSums(answer.sum, priced);
  draw(byId('chart', HTMLDivElement), answer.usage, chooseDay);
  const columns: Column<Usage>[] = [
    { title: 'Day', cell: (line) => link(line.key, `Show ${line.key} alone`, () => chooseDay(line.key)) },
    { title: 'Sessions', cell: (line) => String(line.sessions), number: true },
    { title: 'Minutes', cell: (line) => minutes(line.held_ms), number: true },
    { title: 'From peers', cell: (line) => size(line.peer_rx_bytes), number: true },
    { title: 'To peers', cell: (line) => size(line.peer_tx_bytes), number: true },
    { title: 'Client leg', cell: (line) => size(line.client_rx_bytes + line.client_tx_bytes), number: true },
    { title: 'Quality', cell: (line) => badge(line.quality) },
  ];
  if (priced) columns.push({ title: 'Price', cell: (line) => money(line.price), number: true });
  const newest = [...answer.usage].reverse();
  show(byId('usage', HTMLDivElement), columns, newest, nothingYet('Nothing was used in this time.'), { testid: 'usage-row' });
}

function showSums(sum: Sum, priced: boolean): void {
  const facts: [string, string, string][] = [
    ['sessions', 'Sessions', String(sum.sessions)],
    ['relayed', 'of these relayed', String(sum.relayed)],
    ['minutes', 'Minutes held', minutes(sum.held_ms)],
    ['payload', 'Payload', size(sum.peer_rx_bytes + sum.peer_tx_bytes)],
    ['client', 'Client leg', size(sum.client_rx_bytes + sum.client_tx_bytes)],
  ];
  if (priced) facts.push(['price', 'Price', money(sum.price)]);
  const boxes = facts.map(([name, title, value]) => {
    const number = make('dd', '', value);
    number.dataset.testid = `sum-${name}`;
    return make('div', 'sum', make('dt', '', title), number);
  });
  byId('sums', HTMLDListElement).replaceChildren(...boxes);
}

async function loadLive(signal: AbortSignal): Promise<void> {
  const query = { ...people(), limit: LIVE_ROWS };
  const answer = await ask<Page & { allocations: Allocation[] }>('turn/allocations', query, signal);
  const columns: Column<Allocation>[] = [
    { title: 'User', cell: (row) => name(row.user) },
    { title: 'Room', cell: (row) => name(row.room) },
    { title: 'Over', cell: (row) => row.transport || '–' },
    { title: 'Client', cell: (row) => name(row.remote) },
    { title: 'Server', cell: (row) => name(row.node) },
    { title: 'Open for', cell: (row) => duration(Math.max(0, answer.now_ms - row.started_ms)), number: true },
    { title: 'From peers', cell: (row) => size(row.peer_rx_bytes), number: true },
    { title: 'To peers', cell: (row) => size(row.peer_tx_bytes), number: true },
    { title: 'Peak', cell: (row) => rate(row.peak_bps), number: true },
  ];
  show(byId('live', HTMLDivElement), columns, answer.allocations, 'No allocation is open just now.', { testid: 'live-row' });
  const hidden = answer.total > answer.allocations.length ? `, ${answer.allocations.length} shown` : '';
  byId('live-count', HTMLParagraphElement).textContent = answer.total ? `${answer.total} open${hidden}` : '';
}

async function loadSessions(signal: AbortSignal): Promise<void> {
  const query = { ...filter(), ...orderQuery(), limit: ROWS, offset };
  const answer = await ask<Page & { sessions: Session[] }>('turn/sessions', query, signal);
  total = answer.total;
  const columns: Column<Session>[] = [
    { title: 'Started', cell: (row) => `${row.start_known ? '' : '≤ '}${time(row.started)}`, sort: 'started' },
    { title: 'User', cell: (row) => person(row), sort: 'user' },
    { title: 'Room', cell: (row) => (row.room ? link(row.room, `Show the room ${row.room} alone`, () => choose(room, row.room)) : '–'), sort: 'room' },
    { title: 'Held', cell: (row) => duration(row.held_ms), number: true, sort: 'held' },
    { title: 'Active', cell: (row) => duration(row.active_ms), number: true },
    { title: 'Payload', cell: (row) => size(row.peer_rx_bytes + row.peer_tx_bytes), number: true, sort: 'bytes' },
    { title: 'Client leg', cell: (row) => size(row.client_rx_bytes + row.client_tx_bytes), number: true },
    { title: 'Use', cell: (row) => badge(row.class) },
    { title: 'Quality', cell: (row) => badge(row.quality) },
    { title: 'End', cell: (row) => (row.open ? badge('open') : (row.end_reason ?? '–')) },
  ];
  const empty = nothingYet('No session began in this time.');
  show(byId('sessions', HTMLDivElement), columns, answer.sessions, empty, { testid: 'session-row', order, onSort: sortBy });
  const last = offset + answer.sessions.length;
  byId('sessions-count', HTMLParagraphElement).textContent = total ? `${total} in all` : '';
  byId('page', HTMLParagraphElement).textContent = total ? `${offset + 1}–${last} of ${total}` : '';
  byId('earlier', HTMLButtonElement).disabled = offset === 0;
  byId('later', HTMLButtonElement).disabled = last >= total;
}

async function loadInputs(signal: AbortSignal): Promise<void> {
  const health = await ask<Health>('turn/inputs', {}, signal);
  const place = byId('inputs', HTMLDivElement);
  if (health.inputs.length === 0) {
    place.replaceChildren(make('p', 'empty', `Nothing tells of a TURN server. ${SET_UP}`));
    return;
  }
  const account = health.accounting;
  const count = (name: string): number => account[name] ?? 0;
  const hits = Object.values(health.quota_hits).reduce((sum, number) => sum + number, 0);
  const facts: [string, number][] = [
    ['orphans', count('orphans')],
    ['ambiguous', count('ambiguous')],
    ['heard twice', count('duplicates')],
    ['server restarts', count('node_restarts')],
    ['outages', count('outages')],
    ['refused', count('refused')],
    ['rows lost', health.rows_refused],
    ['quota hits', hits],
  ];
  const list = make('ul', 'facts', ...facts.map(([title, number]) => make('li', '', `${number} ${title}`)));
  list.dataset.testid = 'accounting';
  place.replaceChildren(...health.inputs.map((input) => inputBox(input, health.now_ms)), list);
}

function inputBox(input: Input, nowMs: number): HTMLElement {
  const kinds: Record<string, string> = { resp: 'coturn, direct', redis: 'coturn, by Redis', own: 'Own TURN server' };
  const heard = input.last_message_ms ? `last heard ${duration(Math.max(0, nowMs - input.last_message_ms))} ago` : 'nothing heard yet';
  const title = make('h3', '', kinds[input.name] ?? input.name, ' ', badge(input.connected ? 'connected' : 'silent'));
  const numbers = [`${input.messages} messages`, `${input.gaps} gaps`, `${input.unreadable} unreadable`];
  if (input.tee_dropped) numbers.push(`${input.tee_dropped} not repeated to Redis`);
  const box = make('div', 'input', title, make('p', 'hint', [input.address, heard].filter(Boolean).join(' · ')), make('p', '', numbers.join(' · ')));
  if (input.nodes.length > 0) {
    const nodes = input.nodes.slice(0, 50).map((node) => make('li', '', name(node.name), ' ', badge(node.connected ? 'connected' : 'gone')));
    box.append(make('ul', 'nodes', ...nodes));
  }
  box.dataset.testid = 'input';
  return box;
}

// Small parts

function sortBy(sort: string): void {
  order = { sort, descending: order.sort === sort ? !order.descending : sort !== 'user' && sort !== 'room' };
  offset = 0;
  loadSessions(wanted.signal).catch(complain);
}

function choose(input: HTMLInputElement, value: string): void {
  input.value = value;
  restart();
}

function person(row: Session): Node {
  return link(row.user, `Show the user ${row.user} alone`, () => choose(user, row.user));
}

function link(text: string, title: string, action: () => void): HTMLElement {
  const button = make('button', 'link', text);
  button.type = 'button';
  button.title = title;
  button.dataset.key = `${title} ${text}`;
  button.addEventListener('click', action);
  return button;
}

/** A name may be long; the whole of it is its title. */
function name(text: string): Node | string {
  if (!text) return '–';
  const span = make('span', 'name', text);
  span.title = text;
  return span;
}

function badge(word: string): HTMLElement {
  const kinds: Record<string, string> = {
    exact: 'good',
    relayed: 'good',
    connected: 'good',
    open: 'live',
    'lower-bound': 'doubt',
    silent: 'doubt',
    gone: 'doubt',
  };
  return make('span', `badge ${kinds[word] ?? ''}`, word);
}

/** What to do so that something comes. */
function nothingYet(text: string): Node {
  const filtered = Object.values(filter()).some((value) => value !== '');
  return document.createTextNode(`${text} ${filtered ? WIDEN : SET_UP}`);
}
