import { Track, type Participant, type RemoteTrack, type LocalTrack } from 'livekit-client';
import { make } from './dom';
import { icon } from './icons';

/** One participant's camera, or one shared screen. */
export class Tile {
  readonly element: HTMLLIElement;
  private readonly video = document.createElement('video');
  private readonly caption = make('span', 'caption-name');
  private readonly muted = make('span', 'caption-muted', icon('micOff'));
  private readonly initials = make('span', 'initials');
  private attached: RemoteTrack | LocalTrack | undefined;

  constructor(
    private readonly participant: Participant,
    private readonly source: Track.Source.Camera | Track.Source.ScreenShare,
  ) {
    this.video.playsInline = true;
    this.video.autoplay = true;
    // Sound has elements of its own: a tile that comes and goes must not cut it off.
    this.video.muted = true;
    this.element = make('li', 'tile', this.initials, this.video, make('div', 'caption', this.muted, this.caption));
    this.element.dataset.testid = 'tile';
    this.element.dataset.identity = participant.identity;
    this.element.dataset.source = source;
    this.element.classList.toggle('screen', this.isScreen);
    this.video.classList.toggle('mirrored', participant.isLocal && !this.isScreen);
    this.draw();
  }

  private get isScreen(): boolean {
    return this.source === Track.Source.ScreenShare;
  }

  /** Reads the participant's state anew. */
  draw(): void {
    const publication = this.participant.getTrackPublication(this.source);
    const track = publication?.isMuted ? undefined : publication?.videoTrack;
    if (track !== this.attached) {
      this.attached?.detach(this.video);
      track?.attach(this.video);
      this.attached = track;
    }
    const silent = !this.isScreen && !this.participant.isMicrophoneEnabled;
    const name = displayName(this.participant);
    this.video.hidden = !track;
    this.initials.hidden = track !== undefined;
    this.initials.textContent = initialsOf(name);
    this.muted.hidden = !silent;
    this.caption.textContent = this.isScreen ? `${name}: screen` : this.participant.isLocal ? `${name} (you)` : name;
    this.element.classList.toggle('speaking', !this.isScreen && this.participant.isSpeaking && !silent);
    this.element.setAttribute('aria-label', this.label(name, silent, track !== undefined));
    this.video.setAttribute('aria-label', this.isScreen ? `Screen of ${name}` : `Camera of ${name}`);
  }

  close(): void {
    this.attached?.detach(this.video);
    this.attached = undefined;
  }

  private label(name: string, silent: boolean, seen: boolean): string {
    if (this.isScreen) return `${name} shares the screen`;
    const parts = [this.participant.isLocal ? `${name}, you` : name];
    if (silent) parts.push('microphone off');
    if (!seen) parts.push('camera off');
    return parts.join(', ');
  }
}

export function displayName(participant: Participant): string {
  return participant.name || participant.identity;
}

function initialsOf(name: string): string {
  const words = name.split(/\s+/).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0]?.toUpperCase() ?? '').join('');
}
