/** One user's time on the relay; field names as in docs/api.md. */
export interface Session {
  session: number;
  user: string;
  room: string;
  realm: string;
  started: string;
  started_ms: number;
  start_known: boolean;
  open: boolean;
  end_reason: string | null;
  held_ms: number;
  active_ms: number;
  allocations: number;
  leftovers: number;
  peer_rx_bytes: number;
  peer_tx_bytes: number;
  client_rx_bytes: number;
  client_tx_bytes: number;
  peak_bps: number;
  class: string;
  quality: string;
}

export interface Allocation {
  allocation: number;
  user: string;
  room: string;
  node: string;
  transport: string;
  remote: string;
  started: string;
  started_ms: number;
  peer_rx_bytes: number;
  peer_tx_bytes: number;
  peak_bps: number;
}

export interface Sum {
  sessions: number;
  relayed: number;
  allocations: number;
  held_ms: number;
  active_ms: number;
  client_rx_bytes: number;
  client_tx_bytes: number;
  peer_rx_bytes: number;
  peer_tx_bytes: number;
  price: number;
}

export interface Usage extends Sum {
  key: string;
  quality: string;
}

export interface Page {
  total: number;
  now_ms: number;
}

export interface Input {
  name: string;
  address: string;
  connected: boolean;
  last_message_ms: number | null;
  messages: number;
  gaps: number;
  unreadable: number;
  tee_dropped: number;
  nodes: { name: string; connected: boolean }[];
}

export interface Health {
  now_ms: number;
  inputs: Input[];
  accounting: Record<string, number>;
  rows_refused: number;
  quota_hits: Record<string, number>;
}

/** The server wants a token, or another one; the text says why. */
export class Denied extends Error {}

const KEY = 'fanlight-console-token';

/** The token lives as long as this tab; where storage is switched off, as long as this page. */
let kept = '';

export function token(): string {
  try {
    return sessionStorage.getItem(KEY) ?? kept;
  } catch {
    return kept;
  }
}

export function keepToken(text: string): void {
  kept = text;
  try {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch {
    // It is kept in this page.
  }
}

/** Parameters that are empty are left out. */
export type Query = Record<string, string | number>;

async function request(name: string, query: Query, signal?: AbortSignal): Promise<Response> {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== '') parameters.set(key, String(value));
  const headers: Record<string, string> = token() ? { Authorization: `Bearer ${token()}` } : {};
  const response = await fetch(`/api/v1/${name}?${parameters}`, { headers, signal: signal ?? null });
  if (response.ok) return response;
  const text = await message(response);
  throw response.status === 401 ? new Denied(text) : new Error(text);
}

export async function ask<T>(name: string, query: Query, signal?: AbortSignal): Promise<T> {
  return (await (await request(name, query, signal)).json()) as T;
}

/** A file to save: a link cannot carry the token. */
export async function download(name: string, query: Query): Promise<void> {
  const blob = await (await request(name, { ...query, format: 'csv' })).blob();
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace('/', '-')}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function message(response: Response): Promise<string> {
  const text = await response.text();
  try {
    return (JSON.parse(text) as { msg?: string }).msg ?? text;
  } catch {
    return text || `The server answered ${response.status}.`;
  }
}
