/**
 * Runs inside a page, before any of its scripts, and is sent as text: records what peer connections do and count, and tells it
 * over a WebSocket as rtcstats does in its protocol 5. What it does not give a number goes by its name, as documented.
 */
export function recordRtcStats({ url, interval }) {
  const METHODS = {
    getStats: 'g', setLocalDescription: 6, setRemoteDescription: 8, onicecandidate: 20, onsignalingstatechange: 23,
    oniceconnectionstatechange: 24, onconnectionstatechange: 25, close: 36, create: 39,
  };
  const TYPES = {
    'inbound-rtp': 1, 'outbound-rtp': 2, 'remote-inbound-rtp': 3, 'remote-outbound-rtp': 4, transport: 5, 'candidate-pair': 6,
    'local-candidate': 7, 'remote-candidate': 8, 'data-channel': 9, 'peer-connection': 10, 'media-source': 12, 'media-playout': 13,
    codec: 14,
  };
  const MEMBERS = {
    timestamp: 't', transportId: 5, mimeType: 6, ssrc: 10, kind: 11, codecId: 12, packetsReceived: 14, packetsLost: 15, jitter: 16,
    trackIdentifier: 17, mid: 18, remoteId: 19, bytesReceived: 41, jitterBufferDelay: 47, retransmittedPacketsReceived: 68,
    localId: 74, packetsSent: 79, bytesSent: 80, mediaSourceId: 81, rid: 82, retransmittedPacketsSent: 85,
    qualityLimitationDurations: 96, state: 118, priority: 137, nominated: 150,
  };
  const waiting = [];
  let socket;
  let lastTime = 0;

  function trace(method, peer, value, ...more) {
    const now = Date.now();
    const message = [METHODS[method] ?? method, peer, value, ...more, now - lastTime];
    lastTime = now;
    if (!socket || socket.readyState === WebSocket.CONNECTING) waiting.push(message);
    // What is said while the socket is closed is lost.
    else if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }

  function connect() {
    socket = undefined;
    lastTime = 0;
    trace('create', null, { hardwareConcurrency: navigator.hardwareConcurrency });
    socket = new WebSocket(url, 'rtcstats#5.0');
    socket.onopen = () => waiting.splice(0).forEach((message) => socket.send(JSON.stringify(message)));
    socket.onclose = ({ code, reason }) => console.log(`rtcstats closed: ${code} ${reason}`);
    return new Promise((resolve) => socket.addEventListener('open', resolve));
  }

  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  /** What has changed since `before`; ids are numbered in `ids` as they come up. */
  function difference(before, now, ids) {
    const objects = {};
    for (const [id, object] of Object.entries(now)) {
      const members = {};
      for (const [name, value] of Object.entries(object)) {
        const old = before[id]?.[name];
        if (name === 'id' || same(value, old)) continue;
        if (old && typeof value === 'object' && !Array.isArray(value)) {
          members[name] = Object.fromEntries(Object.entries(value).filter(([inner, one]) => one !== old[inner]));
        } else members[name] = value;
      }
      objects[id] = members;
    }
    const common = Math.max(...Object.values(objects).map((members) => members.timestamp ?? -Infinity));
    const delta = { t: common };
    for (const [id, members] of Object.entries(objects)) {
      if (members.timestamp === common) delete members.timestamp;
      if (members.type === 'certificate' || Object.keys(members).length === 0) delete objects[id];
      else ids[id] ??= String(Object.keys(ids).length);
    }
    for (const [id, members] of Object.entries(objects)) {
      const short = {};
      for (const [name, value] of Object.entries(members)) {
        if (name === 'type') short.type = TYPES[value] ?? value;
        else short[MEMBERS[name] ?? name] = name.endsWith('Id') ? ids[value] : value;
      }
      delta[ids[id]] = short;
    }
    for (const id of Object.keys(before)) if (ids[id] && !now[id]) delta[ids[id]] = null;
    return delta;
  }

  let count = 0;
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...parameters) {
      super(...parameters);
      const name = `PC_${count++}`;
      const ids = {};
      let before = {};
      this.rtcStatsName = name;
      trace('create', name, {});
      for (const state of ['signalingState', 'iceConnectionState', 'connectionState']) {
        const event = `${state.toLowerCase()}change`;
        this.addEventListener(event, () => trace(`on${event}`, name, this[state]));
      }
      this.addEventListener('icecandidate', ({ candidate }) => trace('onicecandidate', name, candidate));
      const timer = setInterval(async () => {
        if (this.signalingState === 'closed') return clearInterval(timer);
        const now = JSON.parse(JSON.stringify(Object.fromEntries(await this.getStats())));
        trace('getStats', name, difference(before, now, ids));
        before = now;
      }, interval);
    }
    setRemoteDescription(description) {
      trace('setRemoteDescription', this.rtcStatsName, description, '8-0');
      return super.setRemoteDescription(description);
    }
    close() {
      trace('close', this.rtcStatsName, undefined);
      super.close();
    }
  };
  connect();
  window.rtcstats = { connect, breakOff: () => socket.close(), isOpen: () => socket.readyState === WebSocket.OPEN };
}
