import { byId, make } from '../../dom';
import { ask } from '../api';
import { duration, size, time } from '../format';
import { show, type Column } from '../table';
import { graph, number, type Sample } from './graph';
import { name } from './list';
import type { One, Point, StatsObject, Track, Values } from './model';

/** What most people come for stands first. */
const FIRST = ['inbound-rtp', 'outbound-rtp', 'remote-inbound-rtp', 'remote-outbound-rtp', 'candidate-pair', 'transport', 'media-source', 'media-playout'];
/** Numbers that name something, and are not drawn. */
const NAMES = new Set(['ssrc', 'rtxSsrc', 'fecSsrc', 'timestamp', 'payloadType', 'port', 'priority']);

const chosen = byId('object', HTMLSelectElement);
const fields = byId('fields', HTMLInputElement);

let points: Point[] = [];
let latest: StatsObject[] = [];

export function bindOne(load: () => void): void {
  chosen.addEventListener('change', load);
  fields.addEventListener('input', drawGraphs);
}

export async function loadOne(client: string, signal: AbortSignal): Promise<void> {
  const [one, last] = await Promise.all([
    ask<One>(`clients/${client}`, {}, signal),
    ask<{ objects: StatsObject[] }>(`clients/${client}/latest`, {}, signal),
  ]);
  latest = last.objects.sort((a, b) => rank(a) - rank(b) || key(a).localeCompare(key(b)));
  showFacts(one);
  showTracks(one.tracks);
  fillObjects();
  const object = latest.find((entry) => key(entry) === chosen.value);
  const answer = object
    ? await ask<{ points: Point[] }>(`clients/${client}/series`, { type: object.type, id: object.id, limit: 5000 }, signal)
    : { points: [] };
  points = answer.points.filter((point) => point.object);
  drawGraphs();
  showValues(object?.object ?? {});
}

const key = (object: StatsObject): string => `${object.type} ${object.id}`;

function rank(object: StatsObject): number {
  const place = FIRST.indexOf(object.type);
  const nominated = object.type !== 'candidate-pair' || object.object?.nominated === true;
  // Media with pictures before media without.
  return (place < 0 ? FIRST.length : place) * 4 + (nominated ? 0 : 2) + (object.object?.kind === 'video' ? 0 : 1);
}

function fillObjects(): void {
  const before = chosen.value;
  const kinds = [...new Set(latest.map((object) => object.type))];
  const groups = kinds.map((kind) => {
    const group = document.createElement('optgroup');
    group.label = kind;
    for (const object of latest.filter((entry) => entry.type === kind)) {
      const words = ['method', 'kind', 'rid', 'mid', 'state', 'mimeType', 'candidateType', 'protocol'].map((word) => object.object?.[word]);
      const option = new Option([object.id, ...words.filter((word) => word !== undefined && word !== '')].join(' · '), key(object));
      group.append(option);
    }
    return group;
  });
  chosen.replaceChildren(...groups);
  chosen.value = latest.some((object) => key(object) === before) ? before : latest[0] ? key(latest[0]) : '';
}

function showFacts({ client, participant, now_ms }: One): void {
  const age = now_ms - client.last_ms;
  const software = participant ? [participant.client.browser, participant.client.browser_version, participant.client.os] : [];
  const facts: [string, Node | string][] = [
    ['Room', name(client.channel_id)],
    ['User', name(client.client_id)],
    ['Participant', name(participant?.sid ?? client.participant_sid)],
    ['Client', software.filter(Boolean).join(' ') || `${client.label} ${client.version}`],
    ['First report', time(new Date(client.first_ms).toISOString())],
    ['Last report', `${time(new Date(client.last_ms).toISOString())}${age > 0 && age < 3_600_000 ? `, ${duration(age)} ago` : ''}`],
    ['Reports', String(client.reports)],
    ['Objects', `${client.stored} stored, ${client.unchanged} unchanged, ${client.rejected} rejected`],
    ['Connection', name(client.connection_id)],
  ];
  const boxes = facts.map(([title, value]) => make('div', '', make('dt', '', title), make('dd', '', value)));
  byId('facts', HTMLDListElement).replaceChildren(...boxes);
  byId('title', HTMLHeadingElement).textContent = client.client_id || `Connection ${client.number}`;
  document.title = `${client.client_id || client.connection_id} · Fanlight`;
}

function showTracks(tracks: Track[]): void {
  byId('tracks-panel', HTMLElement).hidden = tracks.length === 0;
  const seconds = (us: number | undefined) => (us ? `${(us / 1000).toFixed(1)} ms` : '–');
  const columns: Column<Track>[] = [
    { title: 'Track', cell: (track) => `${track.direction === 'publish' ? 'sent' : 'received'} ${track.source || (track.kind ?? '')}` },
    { title: 'Codec', cell: (track) => track.codec.split('/').at(-1) ?? '' },
    { title: 'Client packets', cell: (track) => of(track, ({ packets }) => number(packets)), number: true },
    { title: 'Server packets', cell: (track) => number(track.client?.server_packets ?? sum(track)), number: true },
    { title: 'Apart', cell: apart, number: true },
    { title: 'Client bytes', cell: (track) => of(track, ({ bytes }) => size(bytes)), number: true },
    { title: 'Server bytes', cell: (track) => size(track.counters.bytes + track.counters.retransmitted_bytes), number: true },
    { title: 'Client lost', cell: (track) => of(track, ({ lost }) => number(lost)), number: true },
    { title: 'Server lost', cell: (track) => number(track.counters.lost), number: true },
    { title: 'Client RTT', cell: (track) => seconds(track.client?.rtt_us), number: true },
    { title: 'Server RTT', cell: (track) => seconds(track.counters.rtt_us), number: true },
    { title: 'Frozen', cell: (track) => (track.client?.freezes ? `${track.client.freezes} times, ${duration(track.client.frozen_ms)}` : '–'), number: true },
  ];
  show(byId('tracks', HTMLDivElement), columns, tracks, '', { testid: 'track-row' });
}

/** Packets as the server counts them, retransmissions and padding among them. */
const sum = ({ counters }: Track): number => counters.packets + counters.retransmitted + counters.padding;

/** Of a track that a metric names the client has not said what it counted. */
const of = (track: Track, say: (client: NonNullable<Track['client']>) => string): string => (track.client ? say(track.client) : '–');

function apart(track: Track): string {
  const { packets, server_packets: server } = track.client ?? { packets: 0, server_packets: 0 };
  return server ? `${((Math.abs(packets - server) / server) * 100).toFixed(2)} %` : '–';
}

/** Derived values first, then counters and the rest as they came. */
function drawGraphs(): void {
  const series = new Map<string, Sample[]>();
  const add = (name: string, time: number, value: unknown) => {
    if (typeof value !== 'number' || NAMES.has(name)) return;
    const samples = series.get(name) ?? [];
    samples.push([time, value]);
    series.set(name, samples);
  };
  for (const point of points) for (const [name, value] of Object.entries(point.rates)) add(name, point.at_ms, value);
  for (const point of points) {
    const { samples, ...values } = point.object ?? {};
    const measured = Array.isArray(samples);
    // A metric of a LiveKit client has several values in one report, with times of their own; the last one stands there twice.
    if (measured) for (const [time, value] of samples as Sample[]) add('value', time, value);
    for (const [name, value] of Object.entries(flat(values))) if (!measured || name !== 'value') add(name, point.at_ms, value);
  }
  // Reports may tell of times that overlap.
  for (const samples of series.values()) samples.sort(([one], [other]) => one - other);
  const wanted = fields.value.trim().toLowerCase();
  const shown = [...series].filter(([name, samples]) => samples.length > 1 && name.toLowerCase().includes(wanted));
  // What never changed says more as a number, below.
  const moving = shown.filter(([, samples]) => samples.some(([, value]) => value !== samples[0]![1]));
  const times = moving.flatMap(([, samples]) => [samples[0]![0], samples.at(-1)![0]]);
  const span: Sample = [Math.min(...times), Math.max(...times)];
  const empty = make('p', 'empty', points.length < 2 ? 'There is one report of this object yet.' : 'Nothing of that name changed.');
  byId('graphs', HTMLDivElement).replaceChildren(...(moving.length ? moving.map(([name, samples]) => graph(name, samples, span)) : [empty]));
}

/** Numbers within an object, such as of qualityLimitationDurations, under both names. */
function flat(values: Values): Values {
  return Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.entries(value).map(([inner, number]) => [`${name}.${inner}`, number])
        : [[name, value]],
    ),
  );
}

function showValues(object: Values): void {
  const columns: Column<[string, unknown]>[] = [
    { title: 'Field', cell: ([name]) => name },
    { title: 'Value', cell: ([, value]) => (typeof value === 'number' ? String(value) : typeof value === 'string' ? value : JSON.stringify(value)) },
  ];
  show(byId('values', HTMLDivElement), columns, Object.entries(flat(object)), 'Nothing was said yet.', { testid: 'value-row' });
}
