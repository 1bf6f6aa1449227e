// Sends what `getStats()` says of a page's peer connections to Fanlight (docs/clients.md). Small on purpose: other sites load it.

export interface Options {
  /** Where Fanlight is; by default where this script came from. */
  url?: string;
  /** Access token of the room, or what gives one; it says room and identity. */
  token?: string | (() => string);
  /** A key of `fanlight.collector.keys`, in place of a token. */
  key?: string;
  /** With a key: names to find this page by. */
  room?: string;
  user?: string;
  /** The participant's sid, as far as it is known. */
  participant?: string | (() => string | undefined);
  /** Milliseconds between two reports. */
  interval?: number;
  /** Report every RTCPeerConnection that this page makes from now on; else only those that are added. */
  wrap?: boolean;
}

export interface Stats {
  /** Reports this connection, too. */
  add(connection: RTCPeerConnection): void;
  /** Reports now. */
  flush(): Promise<void>;
  /** Reports once more and ends. */
  stop(): Promise<void>;
}

/** Reports of one sender: who that is, as members of a body, and a report as JSON. */
type Waiting = [who: string, report: string];
type Watched = { id: string; connection: RTCPeerConnection; last: Map<string, string>; full: number };

const VERSION = '1';
/** The server takes 64 KiB, and browsers send no more while a page closes. */
const BODY_BYTES = 62_000;
/** So that a report has room beside a long token; a larger one is sent in parts. */
const PART_BYTES = 40_000;
/** What may wait while the server is away: about an hour of a small call. */
const WAITING_BYTES = 1_000_000;
/** What a reload may leave to the next page; browsers have room for 5 MB of a site. */
const KEPT_BYTES = 500_000;
const BACK_OFF_MS = [1_000, 60_000] as const;
/** All is sent again after so long, so that what is unchanged differs from what is gone. */
const FULL_MS = 600_000;
const KEPT = 'fanlight-stats';

const script = document.currentScript as HTMLScriptElement | null;
const text = JSON.stringify;
const call = <T>(value: T | (() => T)): T => (typeof value === 'function' ? (value as () => T)() : value);
const bytes = (json: string): number => new Blob([json]).size;
const random = (): string => Array.from(crypto.getRandomValues(new Uint8Array(13)), (n) => (n + 256).toString(16).slice(1)).join('');

export function start(options: Options): Stats {
  const url = new URL('/api/v1/client-stats', options.url ?? script?.src ?? location.href).href;
  const interval = options.interval ?? 10_000;
  const page = random();
  const watched = new Set<Watched>();
  const Native = globalThis.RTCPeerConnection;
  let waiting: Waiting[] = [];
  let waitingBytes = 0;
  let backOff = 0;
  let notBefore = 0;
  let sending = false;
  let stopped = false;
  let timer = 0;

  const who = (): string => {
    const { key, room, user, token } = options;
    return text(key ? { key, room, user, page } : { token: call(token), page }).slice(1, -1);
  };

  function push(entry: Waiting): void {
    waiting.push(entry);
    waitingBytes += entry[1].length;
    // The oldest go; what they said is said again.
    while (waitingBytes > WAITING_BYTES) {
      waitingBytes -= waiting.shift()![1].length;
      for (const one of watched) one.last.clear();
    }
  }

  function add(connection: RTCPeerConnection): void {
    for (const one of watched) if (one.connection === connection) return;
    const one: Watched = { id: random(), connection, last: new Map(), full: Date.now() };
    watched.add(one);
    const close = connection.close;
    connection.close = function (): void {
      // Asked for before the numbers are gone.
      void sample(one).then(send);
      watched.delete(one);
      close.call(connection);
    };
  }

  /** Queues what has changed. */
  async function sample(one: Watched): Promise<void> {
    const at = Date.now();
    const said: string[] = [];
    if (at - one.full > FULL_MS) {
      one.last.clear();
      one.full = at;
    }
    try {
      (await one.connection.getStats()).forEach(({ timestamp, ...rest }: RTCStats) => {
        const values = text(rest);
        if (one.last.get(rest.id) === values) return;
        one.last.set(rest.id, values);
        said.push(`{"timestamp":${timestamp},${values.slice(1)}`);
      });
    } catch {
      return;
    }
    const head = { connection: one.id, at, participant: call(options.participant) };
    for (let part = 0; said.length || !part; part++) {
      const stats: string[] = [];
      for (let room = PART_BYTES; said.length && (room -= bytes(said[0]!) + 1) > 0; ) stats.push(said.shift()!);
      if (!stats.length) said.shift();
      push([who(), `${text({ ...head, part }).slice(0, -1)},"stats":[${stats}]}`]);
    }
  }

  /** A body as large as may be, and how many reports are in it. */
  function body(from: number): [json: string, count: number] {
    const first = waiting[from]![0];
    const reports: string[] = [];
    let room = BODY_BYTES - bytes(first);
    for (const [own, report] of waiting.slice(from)) {
      if (own !== first || reports.length > 200 || (room -= bytes(report) + 1) < 0) break;
      reports.push(report);
    }
    return [`{${first},"version":"${VERSION}","now":${Date.now()},"reports":[${reports}]}`, reports.length || 1];
  }

  async function send(): Promise<void> {
    if (sending) return;
    sending = true;
    while (waiting.length && Date.now() >= notBefore) {
      const [json, count] = body(0);
      let status = 0;
      let after = 0;
      try {
        // A plain text needs no preflight.
        const answer = await fetch(url, { method: 'POST', body: json, credentials: 'omit', keepalive: true });
        status = answer.status;
        after = Number(answer.headers.get('retry-after')) * 1_000;
        if (!answer.ok) console.warn('fanlight-stats', status, await answer.text());
      } catch {
        // Nobody is there; tried again later.
      }
      if (status && status < 500 && status !== 429) {
        for (const [, report] of waiting.splice(0, count)) waitingBytes -= report.length;
        backOff = 0;
        if (status === 401 || status === 403 || status === 404) end();
      } else {
        backOff = Math.min(Math.max(backOff * 2, BACK_OFF_MS[0]), BACK_OFF_MS[1]);
        notBefore = Date.now() + Math.max(after, backOff * (0.5 + Math.random()));
        setTimeout(send, notBefore - Date.now() + 1);
      }
    }
    sending = false;
  }

  async function flush(): Promise<void> {
    await Promise.all([...watched].map(sample));
    await send();
  }

  function next(): void {
    if (stopped) return;
    // Pages that were opened together do not report together.
    timer = setTimeout(() => void flush().then(next), interval * (0.9 + Math.random() / 5));
  }

  const back = (): void => {
    notBefore = backOff = 0;
    void send();
  };

  /** Nobody hears how this ends: what is not known to have arrived is left to the next page, too. */
  const leave = (): void => {
    for (let from = 0, room = BODY_BYTES; from < waiting.length; ) {
      const [json, count] = body(from);
      if ((room -= bytes(json)) < 0 || !navigator.sendBeacon(url, json)) break;
      from += count;
    }
    keep(waiting);
  };

  const hidden = (): void => {
    if (document.hidden) void flush();
  };

  function end(): void {
    stopped = true;
    waiting = [];
    clearTimeout(timer);
    removeEventListener('online', back);
    removeEventListener('pagehide', leave);
    document.removeEventListener('visibilitychange', hidden);
    if (globalThis.RTCPeerConnection === wrapped) globalThis.RTCPeerConnection = Native;
  }

  const wrapped = new Proxy(Native, {
    construct(target, parameters, self): RTCPeerConnection {
      const connection = Reflect.construct(target, parameters, self) as RTCPeerConnection;
      if (!stopped) add(connection);
      return connection;
    },
  });
  if (options.wrap !== false) globalThis.RTCPeerConnection = wrapped;
  addEventListener('online', back);
  addEventListener('pagehide', leave);
  document.addEventListener('visibilitychange', hidden);
  for (const entry of kept()) push(entry);
  void send();
  next();
  return {
    add,
    flush,
    stop: async () => {
      if (stopped) return;
      await flush();
      if (waiting.length) leave();
      end();
    },
  };
}

function keep(waiting: Waiting[]): void {
  let room = KEPT_BYTES;
  const most = waiting.filter((entry) => (room -= entry[0].length + entry[1].length) > 0);
  try {
    sessionStorage.setItem(KEPT, text(most));
  } catch {
    // No storage here.
  }
}

function kept(): Waiting[] {
  try {
    const found = sessionStorage.getItem(KEPT);
    sessionStorage.removeItem(KEPT);
    return JSON.parse(found ?? '[]') as Waiting[];
  } catch {
    return [];
  }
}
