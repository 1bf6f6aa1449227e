import { videoCodecs, type RoomOptions, type VideoCodec } from 'livekit-client';

/** What the address line asks for. */
export interface Settings {
  room: string;
  name: string;
  token: string;
  /** Join without a click. */
  autojoin: boolean;
  /** Speak the older protocol: two peer connections, `/rtc` instead of `/rtc/v1`. */
  v0: boolean;
  /** Publish video with this codec and no other. */
  codec: VideoCodec | undefined;
  /** Let the size of a tile choose the layer that is received. */
  adaptive: boolean;
  /** Milliseconds between two reports of the browser's statistics to the server; 0 is none. */
  statsInterval: number;
}

const NAME_KEY = 'fanlight.name';

export function readSettings(): Settings {
  const query = new URLSearchParams(location.search);
  const text = (key: string) => query.get(key)?.trim() ?? '';
  const codec = text('codec').toLowerCase();
  return {
    room: text('room'),
    name: text('name') || rememberedName(),
    token: text('token'),
    autojoin: text('autojoin') === '1',
    v0: text('v0') === '1',
    codec: videoCodecs.find((known) => known === codec),
    adaptive: text('adaptive') !== '0',
    statsInterval: statsInterval(text('stats')),
  };
}

function statsInterval(text: string): number {
  const asked = Number(text || 10_000);
  return asked > 0 ? Math.max(asked, 1_000) : 0;
}

/** The address of a room, to be passed on: nobody's name and nobody's token in it. */
export function roomLink(room: string): string {
  const url = new URL(location.href);
  for (const key of ['name', 'token', 'autojoin']) url.searchParams.delete(key);
  url.searchParams.set('room', room);
  url.hash = '';
  return url.href;
}

/** The name used last; storage may be forbidden. */
function rememberedName(): string {
  try {
    return localStorage.getItem(NAME_KEY) ?? '';
  } catch {
    return '';
  }
}

export function rememberName(name: string): void {
  try {
    localStorage.setItem(NAME_KEY, name);
  } catch {
    // Without storage the name is asked for again.
  }
}

export function roomOptions(settings: Settings): RoomOptions {
  return {
    singlePeerConnection: !settings.v0,
    adaptiveStream: settings.adaptive,
    dynacast: true,
    ...(settings.codec && { publishDefaults: { videoCodec: settings.codec, backupCodec: false } }),
  };
}
