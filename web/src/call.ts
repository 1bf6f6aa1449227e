import { DisconnectReason, ParticipantEvent, Room, RoomEvent, Track } from 'livekit-client';
import type { LocalTrack, Participant, RemoteTrack } from 'livekit-client';
import { deviceProblem, type Device } from './devices';
import { announce, byId } from './dom';
import { Grid } from './grid';
import { icon, type IconName } from './icons';
import type { LocalTracks } from './lobby';
import { start, type Stats } from './stats/stats';
import { roomLink, roomOptions, type Settings } from './settings';
import { Tile, displayName } from './tile';
import type { Access } from './token';

const SOURCES = [Track.Source.Camera, Track.Source.ScreenShare] as const;

const roomName = byId('room-name', HTMLHeadingElement);
const people = byId('people', HTMLParagraphElement);
const banner = byId('banner', HTMLParagraphElement);
const copyButton = byId('copy-link', HTMLButtonElement);
const micButton = byId('mic', HTMLButtonElement);
const cameraButton = byId('camera', HTMLButtonElement);
const screenButton = byId('screen', HTMLButtonElement);
const soundButton = byId('sound', HTMLButtonElement);
const leaveButton = byId('leave', HTMLButtonElement);

/** One stay in one room: from connecting until it ends, for whatever reason. */
export class Call {
  readonly room: Room;
  private readonly grid = new Grid(byId('grid', HTMLUListElement));
  private readonly tiles = new Map<string, Tile>();
  private readonly sounds = new Map<RemoteTrack, HTMLMediaElement>();
  private readonly listeners = new AbortController();
  /** Buttons with an action at work; the next call is not bound by them. */
  private readonly acting = new Set<HTMLButtonElement>();
  private entered = false;
  /** The button whose action went wrong last, and what the banner says of it until that button's action goes right. */
  private problem: { button: HTMLButtonElement; message: string } | undefined;
  private stats: Stats | undefined;

  constructor(
    private readonly settings: Settings,
    private readonly onLeft: (message: string) => void,
  ) {
    this.room = new Room(roomOptions(settings));
    this.watchRoom();
  }

  async connect(access: Access): Promise<void> {
    this.report(access.token);
    try {
      await this.room.connect(access.url, access.token);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Tells this server what the browser sees of the call. */
  private report(token: string): void {
    const interval = this.settings.statsInterval;
    if (interval === 0) return;
    const participant = () => this.room.localParticipant.sid || undefined;
    this.stats = start({ url: location.href, token, participant, interval });
  }

  /** Shows the room and publishes what the lobby prepared, each track as soon as it is there. */
  enter(name: string, tracks: LocalTracks): void {
    this.entered = true;
    roomName.textContent = this.room.name || name;
    document.title = `${roomName.textContent} · Fanlight`;
    this.bindControls();
    this.showSound();
    this.drawAll();
    roomName.focus();
    announce(`You are in ${roomName.textContent}.`);
    void this.act(micButton, () => this.publish(tracks.audio), 'microphone');
    void this.act(cameraButton, () => this.publish(tracks.video), 'camera');
  }

  private async publish(opening: Promise<LocalTrack | undefined>): Promise<void> {
    const track = await opening;
    // The call may have ended while the device took its time.
    if (this.entered && track) await this.room.localParticipant.publishTrack(track);
    else track?.stop();
  }

  private watchRoom(): void {
    const draw = () => this.drawAll();
    this.room
      .on(RoomEvent.ParticipantConnected, (participant) => {
        announce(`${displayName(participant)} joined.`);
        draw();
      })
      .on(RoomEvent.ParticipantDisconnected, (participant) => {
        announce(`${displayName(participant)} left.`);
        draw();
      })
      .on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
        if (track.kind === Track.Kind.Audio) this.play(track);
        if (publication.source === Track.Source.ScreenShare) {
          announce(`${displayName(participant)} shares the screen.`);
        }
        draw();
      })
      .on(RoomEvent.TrackUnsubscribed, (track) => {
        this.sounds.get(track)?.remove();
        this.sounds.delete(track);
        track.detach();
        draw();
      })
      .on(RoomEvent.TrackMuted, draw)
      .on(RoomEvent.TrackUnmuted, draw)
      .on(RoomEvent.LocalTrackPublished, draw)
      .on(RoomEvent.LocalTrackUnpublished, draw)
      .on(RoomEvent.ParticipantNameChanged, draw)
      .on(RoomEvent.ActiveSpeakersChanged, draw)
      .on(RoomEvent.AudioPlaybackStatusChanged, () => this.showSound())
      .on(RoomEvent.Reconnecting, () => this.say('Connection lost. Trying again…'))
      .on(RoomEvent.SignalReconnecting, () => this.say('Connection lost. Trying again…'))
      .on(RoomEvent.Reconnected, () => {
        this.say('');
        announce('Connected again.');
        draw();
      })
      .on(RoomEvent.Disconnected, (reason) => this.end(reason));
    this.room.localParticipant.on(ParticipantEvent.IsSpeakingChanged, draw);
  }

  private bindControls(): void {
    const { localParticipant: local } = this.room;
    this.onClick(micButton, () => local.setMicrophoneEnabled(!local.isMicrophoneEnabled), 'microphone');
    this.onClick(cameraButton, () => local.setCameraEnabled(!local.isCameraEnabled), 'camera');
    this.onClick(screenButton, () => local.setScreenShareEnabled(!local.isScreenShareEnabled, { audio: true }));
    this.onClick(soundButton, () => this.room.startAudio());
    this.onClick(leaveButton, () => this.room.disconnect());
    this.onClick(copyButton, async () => {
      await navigator.clipboard.writeText(roomLink(this.room.name));
      announce('Link copied.');
      copyButton.textContent = 'Link copied';
      setTimeout(() => (copyButton.textContent = 'Copy link'), 2000);
    });
    screenButton.hidden = typeof navigator.mediaDevices?.getDisplayMedia !== 'function';
  }

  private onClick(button: HTMLButtonElement, action: () => Promise<unknown>, device?: Device): void {
    button.addEventListener('click', () => void this.act(button, action, device), { signal: this.listeners.signal });
  }

  /** One action at a time for each button: a press while one is at work does nothing. */
  private async act(button: HTMLButtonElement, action: () => Promise<unknown>, device?: Device): Promise<void> {
    if (this.acting.has(button)) return;
    this.acting.add(button);
    button.ariaDisabled = 'true';
    try {
      await action();
      const { problem } = this;
      if (problem?.button === button && banner.textContent === problem.message) this.say('');
    } catch (error) {
      if (this.entered) this.warn(button, error, device);
    } finally {
      this.acting.delete(button);
      if (this.entered) button.ariaDisabled = 'false';
      this.drawAll();
    }
  }

  private drawAll(): void {
    if (!this.entered) return;
    const participants: Participant[] = [this.room.localParticipant, ...this.room.remoteParticipants.values()];
    const wanted = new Set<string>();
    for (const participant of participants) {
      for (const source of SOURCES) {
        if (source === Track.Source.ScreenShare && !participant.getTrackPublication(source)) continue;
        const key = `${participant.sid} ${source}`;
        wanted.add(key);
        this.tileFor(key, participant, source).draw();
      }
    }
    for (const [key, tile] of this.tiles) {
      if (wanted.has(key)) continue;
      tile.close();
      this.grid.remove(tile.element);
      this.tiles.delete(key);
    }
    people.textContent = participants.length === 1 ? 'Only you' : `${participants.length} people`;
    this.drawControls();
  }

  private tileFor(key: string, participant: Participant, source: (typeof SOURCES)[number]): Tile {
    const known = this.tiles.get(key);
    if (known) return known;
    const tile = new Tile(participant, source);
    this.tiles.set(key, tile);
    this.grid.add(tile.element, source === Track.Source.ScreenShare);
    return tile;
  }

  private drawControls(): void {
    const local = this.room.localParticipant;
    const mic = local.isMicrophoneEnabled;
    const camera = local.isCameraEnabled;
    const screen = local.isScreenShareEnabled;
    drawButton(micButton, mic ? 'mic' : 'micOff', mic ? 'Mute microphone' : 'Unmute microphone', 'Mic', !mic);
    drawButton(cameraButton, camera ? 'camera' : 'cameraOff', camera ? 'Turn off camera' : 'Turn on camera', 'Camera', !camera);
    drawButton(screenButton, screen ? 'screenOff' : 'screen', screen ? 'Stop sharing' : 'Share screen', screen ? 'Stop' : 'Share', false);
    screenButton.classList.toggle('active', screen);
    drawButton(soundButton, 'sound', 'Turn on sound', 'Sound', false);
    drawButton(leaveButton, 'leave', 'Leave the call', 'Leave', false);
  }

  private play(track: RemoteTrack): void {
    const element = track.attach();
    element.hidden = true;
    document.body.append(element);
    this.sounds.set(track, element);
  }

  private showSound(): void {
    soundButton.hidden = this.room.canPlaybackAudio;
  }

  private warn(button: HTMLButtonElement, error: unknown, device?: Device): void {
    let message = error instanceof Error ? error.message : String(error);
    if (error instanceof DOMException) {
      if (device) message = `${deviceProblem(device, error)}.`;
      // Closing the browser's own picker of screens is an answer, not a fault.
      else if (error.name === 'NotAllowedError') return;
    }
    this.problem = { button, message };
    this.say(message);
  }

  private say(message: string): void {
    banner.textContent = message;
    banner.hidden = message === '';
  }

  private end(reason: DisconnectReason | undefined): void {
    if (!this.entered) return;
    this.close();
    this.onLeft(leftMessage(reason));
  }

  private close(): void {
    this.entered = false;
    void this.stats?.stop();
    this.listeners.abort();
    for (const button of this.acting) button.ariaDisabled = 'false';
    for (const tile of this.tiles.values()) tile.close();
    for (const element of this.sounds.values()) element.remove();
    this.tiles.clear();
    this.sounds.clear();
    this.grid.close();
    this.say('');
    document.title = 'Fanlight';
  }
}

function drawButton(button: HTMLButtonElement, name: IconName, label: string, short: string, off: boolean): void {
  if (button.getAttribute('aria-label') === label) return;
  const caption = document.createElement('span');
  caption.textContent = short;
  button.replaceChildren(icon(name), caption);
  button.classList.toggle('off', off);
  button.setAttribute('aria-label', label);
  button.title = label;
}

function leftMessage(reason: DisconnectReason | undefined): string {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return 'You left the call.';
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'You joined from somewhere else.';
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'You were removed from the call.';
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'The room was closed.';
    case DisconnectReason.SERVER_SHUTDOWN:
      return 'The server was stopped.';
    default:
      return 'The connection was lost.';
  }
}
