import { byId } from '../dom';
import { roomOfToken } from '../token';
import { Denied, keepToken, token } from './api';

/** What all views of the console share: asking for a token, and saying what went wrong. */
export function bindToken(start: () => Promise<void>): void {
  byId('forget', HTMLButtonElement).addEventListener('click', () => {
    keepToken('');
    void start();
  });
  byId('ask-form', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    keepToken(byId('token', HTMLTextAreaElement).value.trim());
    void start();
  });
}

/** Says which room the token is for, and gives its name; empty when it is for all. */
export function showScope(): string {
  byId('forget', HTMLButtonElement).hidden = token() === '';
  const scope = token() ? roomOfToken(token()) : '';
  byId('scope', HTMLParagraphElement).textContent = scope ? `room ${scope}` : '';
  return scope;
}

export function complain(error: unknown): void {
  if (error instanceof Denied) {
    openView(false);
    byId('ask-error', HTMLParagraphElement).textContent = token() ? error.message : '';
    byId('token', HTMLTextAreaElement).focus();
    return;
  }
  const offline = error instanceof TypeError;
  const text = error instanceof Error ? error.message : String(error);
  say(offline ? 'The server does not answer; trying again.' : text);
  if (byId('ask', HTMLElement).hidden) openView(true);
}

export function openView(open: boolean): void {
  byId('view', HTMLElement).hidden = !open;
  byId('ask', HTMLElement).hidden = open;
}

export function say(text: string): void {
  const banner = byId('banner', HTMLParagraphElement);
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = text === '';
}
