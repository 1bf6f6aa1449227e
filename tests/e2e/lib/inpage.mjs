// Functions that run inside a page. Each stands alone: it is sent as text.

/**
 * Before any script of the page: remembers peer connections, and where `tcpOnly` says so, lets no UDP candidate in or
 * out, as a network without UDP would have it. `relay` (`udp`, `tcp` or `tls`): only TURN servers, and only those reached
 * that way. Leaves a function that reads what all of them count.
 */
export function instrument({ tcpOnly, relay }) {
  if (window.e2ePeers) return;
  window.e2ePeers = [];
  const wanted = (url) => (relay === 'tls' ? url.startsWith('turns:') : url.startsWith('turn:') && url.endsWith(relay));
  const relayed = (config) => {
    const iceServers = (config?.iceServers ?? [])
      .map((server) => ({ ...server, urls: [server.urls].flat().filter(wanted) }))
      .filter((server) => server.urls.length > 0);
    return { ...config, iceServers, iceTransportPolicy: 'relay' };
  };
  const isUdp = (text) => / udp /i.test(text ?? '');
  const withoutUdp = (sdp) =>
    sdp?.split('\r\n').filter((line) => !(line.startsWith('a=candidate:') && isUdp(line))).join('\r\n');
  const Native = window.RTCPeerConnection;
  class Remembered extends Native {
    constructor(config, ...rest) {
      super(relay ? relayed(config) : config, ...rest);
      window.e2ePeers.push(this);
    }
    setConfiguration(config) {
      super.setConfiguration(relay ? relayed(config) : config);
    }
  }
  class TcpOnly extends Remembered {
    async createOffer(...args) {
      const offer = await super.createOffer(...args);
      return { type: offer.type, sdp: withoutUdp(offer.sdp) };
    }
    async createAnswer(...args) {
      const answer = await super.createAnswer(...args);
      return { type: answer.type, sdp: withoutUdp(answer.sdp) };
    }
    get localDescription() {
      const now = super.localDescription;
      return now && { type: now.type, sdp: withoutUdp(now.sdp) };
    }
    setRemoteDescription(description) {
      return super.setRemoteDescription({ type: description.type, sdp: withoutUdp(description.sdp) });
    }
    addIceCandidate(candidate) {
      return isUdp(candidate?.candidate) ? Promise.resolve() : super.addIceCandidate(candidate);
    }
    set onicecandidate(handler) {
      super.onicecandidate = handler && ((event) => isUdp(event.candidate?.candidate) || handler.call(this, event));
    }
    get onicecandidate() {
      return super.onicecandidate;
    }
    addEventListener(type, handler, ...rest) {
      const guarded =
        type === 'icecandidate' ? (event) => isUdp(event.candidate?.candidate) || handler.call(this, event) : handler;
      return super.addEventListener(type, guarded, ...rest);
    }
  }
  window.RTCPeerConnection = tcpOnly ? TcpOnly : Remembered;

  window.e2eReadStats = async () => {
    const checks = { requestsSent: 0, requestsReceived: 0, responsesSent: 0, responsesReceived: 0 };
    const result = { peers: window.e2ePeers.length, checks, pairs: [], inbound: [], outbound: [] };
    for (const peer of window.e2ePeers) {
      if (peer.connectionState === 'closed') continue;
      const stats = await peer.getStats();
      // Chromium nominates every pair that works, and says by its transport which one it sends on.
      const selected = new Set();
      stats.forEach((entry) => selected.add(entry.selectedCandidatePairId));
      stats.forEach((entry) => {
        const codec = stats.get(entry.codecId)?.mimeType ?? '';
        if (entry.type === 'candidate-pair') {
          // Firefox counts none of these but the answers it got.
          for (const key of Object.keys(result.checks)) result.checks[key] += entry[key] ?? 0;
        }
        if (entry.type === 'candidate-pair' && entry.state === 'succeeded' && (entry.selected ?? entry.nominated)) {
          const local = stats.get(entry.localCandidateId);
          result.pairs.push({
            selected: entry.selected ?? selected.has(entry.id),
            protocol: local?.protocol,
            remote: stats.get(entry.remoteCandidateId)?.protocol,
            type: local?.candidateType,
            relayProtocol: local?.relayProtocol,
            bytesSent: entry.bytesSent ?? 0,
            bytesReceived: entry.bytesReceived ?? 0,
          });
        }
        if (entry.type === 'inbound-rtp') {
          result.inbound.push({
            kind: entry.kind,
            ssrc: entry.ssrc,
            track: entry.trackIdentifier ?? '',
            codec,
            packets: entry.packetsReceived ?? 0,
            retransmitted: entry.retransmittedPacketsReceived ?? 0,
            lost: entry.packetsLost ?? 0,
            bytes: entry.bytesReceived ?? 0,
            frames: entry.framesDecoded ?? 0,
            keyFrames: entry.keyFramesDecoded ?? 0,
            width: entry.frameWidth ?? 0,
            height: entry.frameHeight ?? 0,
            energy: entry.totalAudioEnergy ?? 0,
          });
        }
        if (entry.type === 'outbound-rtp') {
          result.outbound.push({
            kind: entry.kind,
            ssrc: entry.ssrc,
            rid: entry.rid ?? '',
            codec,
            packets: entry.packetsSent ?? 0,
            retransmitted: entry.retransmittedPacketsSent ?? 0,
            frames: entry.framesSent ?? entry.framesEncoded ?? 0,
            width: entry.frameWidth ?? 0,
            height: entry.frameHeight ?? 0,
            scalability: entry.scalabilityMode ?? '',
          });
        }
      });
    }
    return result;
  };
}

/** What all peer connections of the page count, in one flat form for both browsers. */
export async function readStats() {
  return window.e2eReadStats();
}

/** The same, and in the same moment the end of all connections: nothing goes on uncounted. */
export async function statsAtTheEnd() {
  const stats = await window.e2eReadStats();
  for (const peer of window.e2ePeers) peer.close();
  return stats;
}

/** Publishes a tone and a plain colour, made in the page, in place of a microphone and a camera. */
export async function publishPattern({ toneHz, colour, width, height }) {
  const room = window.fanlight.room;
  const context = new AudioContext({ sampleRate: 48_000 });
  await context.resume();
  const oscillator = new OscillatorNode(context, { frequency: toneHz });
  const gain = new GainNode(context, { gain: 0.4 });
  const sink = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  oscillator.connect(gain).connect(sink);
  oscillator.start();
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pencil = canvas.getContext('2d', { alpha: false });
  let turn = 0;
  setInterval(() => {
    pencil.fillStyle = `rgb(${colour.join(' ')})`;
    pencil.fillRect(0, 0, width, height);
    // Something moves, or the encoder would have nothing to send.
    pencil.fillStyle = '#888';
    pencil.fillRect((turn++ * 7) % width, height - 8, 16, 8);
  }, 50);
  window.e2ePattern = { context, oscillator, canvas };
  await room.localParticipant.publishTrack(sink.stream.getAudioTracks()[0], { source: 'microphone', name: 'tone' });
  await room.localParticipant.publishTrack(canvas.captureStream(20).getVideoTracks()[0], { source: 'camera', name: 'colour' });
}

/** What is heard and seen of each other participant: the loudest frequency, and the mean colour of the picture. */
export async function readPattern() {
  const result = {};
  const context = (window.e2eListening ??= new AudioContext({ sampleRate: 48_000 }));
  await context.resume();
  const analysers = (window.e2eAnalysers ??= new Map());
  for (const participant of window.fanlight.room.remoteParticipants.values()) {
    const entry = { toneHz: 0, level: -200, colour: null, width: 0, height: 0 };
    result[participant.identity] = entry;
    const audio = participant.getTrackPublication('microphone')?.track?.mediaStreamTrack;
    if (audio) {
      let analyser = analysers.get(audio.id);
      if (!analyser) {
        analyser = new AnalyserNode(context, { fftSize: 16_384, smoothingTimeConstant: 0 });
        context.createMediaStreamSource(new MediaStream([audio])).connect(analyser);
        analysers.set(audio.id, analyser);
      }
      const bins = new Float32Array(analyser.frequencyBinCount);
      analyser.getFloatFrequencyData(bins);
      const loudest = bins.reduce((best, level, bin) => (level > bins[best] ? bin : best), 0);
      entry.toneHz = (loudest * context.sampleRate) / analyser.fftSize;
      entry.level = bins[loudest];
    }
    const tile = `[data-testid="tile"][data-identity="${participant.identity}"][data-source="camera"] video`;
    const video = document.querySelector(tile);
    if (video?.videoWidth) {
      const canvas = Object.assign(document.createElement('canvas'), { width: 32, height: 18 });
      const pencil = canvas.getContext('2d', { willReadFrequently: true });
      pencil.drawImage(video, 0, 0, 32, 18);
      const pixels = pencil.getImageData(0, 0, 32, 15).data;
      const sum = [0, 0, 0];
      for (let at = 0; at < pixels.length; at += 4) for (let c = 0; c < 3; c += 1) sum[c] += pixels[at + c];
      entry.colour = sum.map((total) => Math.round(total / (pixels.length / 4)));
      entry.width = video.videoWidth;
      entry.height = video.videoHeight;
    }
  }
  return result;
}

/** Keeps every data packet that arrives. */
export function collectData() {
  window.e2eData = [];
  window.fanlight.room.on('dataReceived', (payload, participant, kind, topic) => {
    const text = new TextDecoder().decode(payload);
    window.e2eData.push({ from: participant?.identity ?? '', text, topic: topic ?? '', reliable: kind === 0 });
  });
}

export const readData = () => window.e2eData;

export function sendData({ text, reliable, topic, to }) {
  const options = { reliable, topic, destinationIdentities: to ?? [] };
  return window.fanlight.room.localParticipant.publishData(new TextEncoder().encode(text), options);
}

/** Sends a LiveKit data packet by the SDK's own way; the SDK has no call for a packet of one's choice, but a class of packets. */
export async function sendPackets({ bytes, times }) {
  const { engine, localParticipant } = window.fanlight.room;
  const send = engine.sendDataPacket;
  const Packet = await new Promise((resolve) => {
    engine.sendDataPacket = async (packet) => resolve(packet.constructor);
    localParticipant.publishData(new Uint8Array(), { reliable: true });
  });
  engine.sendDataPacket = send;
  const packet = Packet.fromBinary(Uint8Array.from(bytes));
  // 0 is the reliable channel.
  for (let sent = 0; sent < times; sent += 1) await engine.sendDataPacket(packet, 0);
}

/** Stops every sender's encoder without telling the server, so that both ends can be counted at rest. */
export async function stopSending() {
  for (const peer of window.e2ePeers) {
    for (const sender of peer.getSenders()) {
      if (!sender.track) continue;
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) encoding.active = false;
      await sender.setParameters(parameters);
      // Firefox sends audio all the same.
      if (sender.track.kind === 'audio' && navigator.userAgent.includes('Firefox')) await sender.replaceTrack(null);
    }
  }
}
