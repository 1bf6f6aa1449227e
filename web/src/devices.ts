export type Device = 'microphone' | 'camera';

/** Why a device did not open, in words; `error` is what `getUserMedia` failed with. */
export function deviceProblem(device: Device, error: unknown): string {
  const name = error instanceof Error ? error.name : '';
  if (!window.isSecureContext) return `A ${device} needs a secure page (https or this machine)`;
  if (name === 'NotAllowedError') return `The browser does not allow the ${device}`;
  if (name === 'NotFoundError') return `No ${device} found`;
  return `The ${device} cannot be opened`;
}
