import { Room, createLocalAudioTrack, createLocalVideoTrack, VideoPresets } from 'livekit-client';
import type { LocalAudioTrack, LocalVideoTrack } from 'livekit-client';
import { deviceProblem, type Device } from './devices';
import { byId } from './dom';
import { icon } from './icons';
import type { Settings } from './settings';

/** What the form says. */
export interface Entry {
  name: string;
  room: string;
  token: string;
}

/** Local tracks that go from the preview into the call, as soon as their devices are open; none where one is off. */
export interface LocalTracks {
  audio: Promise<LocalAudioTrack | undefined>;
  video: Promise<LocalVideoTrack | undefined>;
}

const form = byId('join-form', HTMLFormElement);
const nameInput = byId('name', HTMLInputElement);
const roomInput = byId('room', HTMLInputElement);
const tokenInput = byId('token', HTMLTextAreaElement);
const joinButton = byId('join', HTMLButtonElement);
const errorText = byId('lobby-error', HTMLParagraphElement);
const video = byId('preview-video', HTMLVideoElement);
const note = byId('preview-note', HTMLParagraphElement);

/** The page before a call: who, where, with which camera and microphone. */
export class Lobby {
  onJoin: (entry: Entry) => void = () => {};
  /** Grows when the lobby opens and when its tracks are taken: devices are opened for the present visit alone. */
  private visit = 0;
  private readonly microphone: DeviceSwitch<LocalAudioTrack>;
  private readonly camera: DeviceSwitch<LocalVideoTrack>;

  constructor(settings: Settings) {
    nameInput.value = settings.name;
    roomInput.value = settings.room;
    tokenInput.value = settings.token;
    if (settings.token) this.showTokenField();
    this.microphone = new DeviceSwitch({
      button: byId('lobby-mic', HTMLButtonElement),
      select: byId('microphones', HTMLSelectElement),
      kind: 'audioinput',
      noun: 'microphone',
      icons: ['mic', 'micOff'],
      create: (deviceId) => createLocalAudioTrack({ deviceId, echoCancellation: true, noiseSuppression: true }),
      changed: () => {},
    });
    this.camera = new DeviceSwitch({
      button: byId('lobby-camera', HTMLButtonElement),
      select: byId('cameras', HTMLSelectElement),
      kind: 'videoinput',
      noun: 'camera',
      icons: ['camera', 'cameraOff'],
      create: (deviceId) => createLocalVideoTrack({ deviceId, resolution: VideoPresets.h720.resolution }),
      changed: showPreview,
    });
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
  }

  /** Shows the lobby, with a word on why, and starts camera and microphone. */
  async open(message: string): Promise<void> {
    this.fail(message);
    (nameInput.value ? (roomInput.value ? joinButton : roomInput) : nameInput).focus();
    const visit = ++this.visit;
    // One after the other: two permission questions at once confuse.
    await this.microphone.open();
    if (this.visit === visit) await this.camera.open();
  }

  submit(): void {
    const entry = {
      name: nameInput.value.trim(),
      room: roomInput.value.trim(),
      token: byId('token-field', HTMLDivElement).hidden ? '' : tokenInput.value.trim(),
    };
    this.fail('');
    if (!entry.token) {
      for (const [input, what] of [[nameInput, 'your name'], [roomInput, 'a room']] as const) {
        const missing = input.value.trim() === '';
        input.setAttribute('aria-invalid', String(missing));
        if (missing) {
          this.fail(`Please enter ${what}.`);
          input.focus();
          return;
        }
      }
    }
    this.onJoin(entry);
  }

  /** Hands the preview's tracks over; the lobby starts new ones when it opens again. */
  takeTracks(): LocalTracks {
    this.visit += 1;
    const audio = this.microphone.take();
    return { audio, video: this.camera.take(audio) };
  }

  askForToken(): void {
    this.showTokenField();
    this.fail('This server needs an access token.');
    tokenInput.focus();
  }

  setBusy(busy: boolean): void {
    joinButton.disabled = busy;
    joinButton.textContent = busy ? 'Joining…' : 'Join';
  }

  fail(message: string): void {
    errorText.textContent = message;
  }

  private showTokenField(): void {
    byId('token-field', HTMLDivElement).hidden = false;
  }
}

interface SwitchOptions<T> {
  button: HTMLButtonElement;
  select: HTMLSelectElement;
  kind: 'audioinput' | 'videoinput';
  noun: Device;
  icons: ['mic', 'micOff'] | ['camera', 'cameraOff'];
  create: (deviceId: string | undefined) => Promise<T>;
  changed: (track: T | undefined, note: string) => void;
}

/** One button and one list of devices for a track that is on or off. */
class DeviceSwitch<T extends LocalAudioTrack | LocalVideoTrack> {
  private wanted = true;
  /** What the device was opened for last. A device takes its time: what comes of an earlier opening is stopped. */
  private opening: Promise<T> | undefined;
  private track: T | undefined;

  constructor(private readonly options: SwitchOptions<T>) {
    options.button.addEventListener('click', () => {
      this.wanted = !this.wanted;
      void this.restart();
    });
    options.select.addEventListener('change', () => {
      this.wanted = true;
      void this.restart();
    });
    this.draw();
  }

  async open(): Promise<void> {
    await this.restart();
    await this.fillSelect();
  }

  /** The track, also one that is not there yet, or not even asked for before `first`; it is the taker's to stop. */
  async take(first?: Promise<unknown>): Promise<T | undefined> {
    const { opening, wanted } = this;
    this.opening = undefined;
    this.show(undefined, '');
    if (opening || !wanted) return opening;
    await first?.catch(() => {});
    return this.create();
  }

  private async restart(): Promise<void> {
    void this.opening?.then((track) => track.stop(), () => {});
    const opening = this.wanted ? this.create() : undefined;
    this.opening = opening;
    this.show(undefined, opening ? `Starting the ${this.options.noun}…` : '');
    if (!opening) return;
    try {
      const track = await opening;
      if (this.opening === opening) this.show(track, '');
    } catch (error) {
      if (this.opening !== opening) return;
      this.opening = undefined;
      this.wanted = false;
      this.show(undefined, deviceProblem(this.options.noun, error));
    }
  }

  private create(): Promise<T> {
    return this.options.create(this.options.select.value || undefined);
  }

  private show(track: T | undefined, note: string): void {
    this.track = track;
    this.options.changed(track, note);
    this.draw();
  }

  private async fillSelect(): Promise<void> {
    const { select, kind, noun } = this.options;
    const devices = await Room.getLocalDevices(kind, false).catch(() => []);
    const chosen = select.value || this.track?.mediaStreamTrack.getSettings().deviceId || '';
    select.replaceChildren(
      ...devices.map((device, index) => new Option(device.label || `${noun} ${index + 1}`, device.deviceId)),
    );
    if (devices.length === 0) select.append(new Option(`No ${noun} found`, ''));
    else if (devices.some((device) => device.deviceId === chosen)) select.value = chosen;
    select.disabled = devices.length < 2;
  }

  private draw(): void {
    const { button, icons, noun } = this.options;
    button.replaceChildren(icon(this.wanted ? icons[0] : icons[1]));
    button.classList.toggle('off', !this.wanted);
    button.setAttribute('aria-label', `${this.wanted ? 'Turn off' : 'Turn on'} ${noun}`);
    button.title = button.getAttribute('aria-label') ?? '';
  }
}

function showPreview(track: LocalVideoTrack | undefined, text: string): void {
  if (track) track.attach(video);
  else video.srcObject = null;
  video.hidden = !track;
  note.textContent = track ? '' : text || 'Your camera is off';
}
