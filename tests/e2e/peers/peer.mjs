// A participant on LiveKit's Node SDK: argv[2] is {url, token, identity, toneHz, colour, v0}.
import readline from 'node:readline';
import {
  AudioFrame,
  AudioSource,
  AudioStream,
  DataPacketKind,
  LocalAudioTrack,
  LocalVideoTrack,
  Room,
  RoomEvent,
  TrackKind,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoFrame,
  VideoSource,
  VideoStream,
} from '@livekit/rtc-node';

const options = JSON.parse(process.argv[2]);
const RATE_HZ = 48_000;
const WIDTH = 640;
const HEIGHT = 360;
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function publishTone(room) {
  const source = new AudioSource(RATE_HZ, 1);
  const publish = new TrackPublishOptions();
  publish.source = TrackSource.SOURCE_MICROPHONE;
  await room.localParticipant.publishTrack(LocalAudioTrack.createAudioTrack('tone', source), publish);
  const samples = RATE_HZ / 100;
  void (async () => {
    for (let at = 0; ; at += samples) {
      const wave = Int16Array.from({ length: samples }, (_, i) =>
        Math.round(10_000 * Math.sin((2 * Math.PI * options.toneHz * (at + i)) / RATE_HZ)),
      );
      await source.captureFrame(new AudioFrame(wave, RATE_HZ, 1, samples));
    }
  })();
}

async function publishColour(room) {
  const source = new VideoSource(WIDTH, HEIGHT);
  const publish = new TrackPublishOptions();
  publish.source = TrackSource.SOURCE_CAMERA;
  await room.localParticipant.publishTrack(LocalVideoTrack.createVideoTrack('colour', source), publish);
  const pixels = new Uint8Array(WIDTH * HEIGHT * 4);
  for (let at = 0; at < pixels.length; at += 4) pixels.set([...options.colour, 255], at);
  setInterval(() => source.captureFrame(new VideoFrame(pixels, WIDTH, HEIGHT, VideoBufferType.RGBA)), 66);
}

async function listen(track, from) {
  let window = [];
  for await (const frame of new AudioStream(track, RATE_HZ, 1)) {
    window.push(...frame.data);
    if (window.length < RATE_HZ / 2) continue;
    say({ event: 'heard', from, values: tone(window) });
    window = [];
  }
}

/** Frequency by counting where the wave rises through zero, level as root mean square. */
function tone(samples) {
  let rises = 0;
  let power = 0;
  for (let i = 1; i < samples.length; i += 1) {
    if (samples[i - 1] < 0 && samples[i] >= 0) rises += 1;
    power += samples[i] * samples[i];
  }
  return { toneHz: (rises * RATE_HZ) / samples.length, rms: Math.sqrt(power / samples.length) };
}

async function watch(track, from) {
  let count = 0;
  for await (const { frame } of new VideoStream(track)) {
    count += 1;
    if (count % 10 !== 0) continue;
    const rgba = frame.convert(VideoBufferType.RGBA);
    const sum = [0, 0, 0];
    // The upper part only: browsers move a mark along the lower edge.
    const end = rgba.width * Math.floor(rgba.height * 0.8) * 4;
    const step = 4 * 97;
    for (let at = 0; at < end; at += step) for (let c = 0; c < 3; c += 1) sum[c] += rgba.data[at + c];
    const colour = sum.map((total) => Math.round(total / Math.ceil(end / step)));
    say({ event: 'heard', from, values: { colour, width: frame.width, height: frame.height, frames: count } });
  }
}

const room = new Room();
room.on(RoomEvent.TrackSubscribed, (track, _publication, participant) => {
  const work = track.kind === TrackKind.KIND_AUDIO ? listen : watch;
  work(track, participant.identity).catch((error) => say({ event: 'note', error: String(error) }));
});
room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
  const packet = { from: participant?.identity ?? '', text: new TextDecoder().decode(payload), topic: topic ?? '', reliable: kind === DataPacketKind.KIND_RELIABLE };
  say({ event: 'data', packet });
});

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const command = JSON.parse(line);
  if (command.do === 'data') {
    const { text, reliable, topic, to } = command;
    await room.localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic, destination_identities: to ?? [] });
  }
  if (command.do === 'leave') {
    await room.disconnect();
    process.exit(0);
  }
});

try {
  await room.connect(options.url, options.token, { autoSubscribe: true, dynacast: false, ...(options.v0 && { singlePeerConnection: false }) });
  await publishTone(room);
  await publishColour(room);
  say({ event: 'published' });
} catch (error) {
  say({ event: 'failed', error: String(error?.message ?? error) });
}
