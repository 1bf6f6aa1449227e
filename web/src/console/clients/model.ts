/** A connection that has reported; field names as in docs/api.md. */
export interface Client {
  number: number;
  source: string;
  connection_id: string;
  session_id: string;
  channel_id: string;
  client_id: string;
  participant_sid: string;
  label: string;
  version: string;
  node_name: string;
  first_ms: number;
  last_ms: number;
  reports: number;
  stored: number;
  unchanged: number;
  rejected: number;
}

export interface Participant {
  sid: string;
  identity: string;
  client: { sdk: string; version: string; browser: string; browser_version: string; os: string };
}

/** A track as the server counted it, with what the client counted beside it. */
export interface Track {
  sid: string;
  direction: 'publish' | 'subscribe';
  kind: string | null;
  source: string;
  codec: string;
  counters: { packets: number; retransmitted: number; padding: number; bytes: number; retransmitted_bytes: number; lost: number; rtt_us: number };
  client?: { packets: number; server_packets: number; bytes: number; lost: number; frames: number; freezes: number; frozen_ms: number; rtt_us: number; jitter_us: number };
}

export interface One {
  now_ms: number;
  client: Client;
  participant: Participant | null;
  tracks: Track[];
}

export type Values = Record<string, unknown>;

export interface StatsObject {
  type: string;
  id: string;
  at_ms: number;
  object: Values | null;
}

export interface Point {
  at_ms: number;
  object: Values | null;
  rates: Record<string, number>;
}
