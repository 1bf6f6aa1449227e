/** Room between tiles, in CSS pixels; the style sheet uses the same. */
const GAP_PX = 10;
const ASPECT = 16 / 9;
/** A face is still recognised. */
const TILE_MIN_PX = 150;

/** Gives tiles the largest size at which all of them fit, and scrolls when that would be too small to see. */
export class Grid {
  private readonly observer: ResizeObserver;

  constructor(private readonly list: HTMLUListElement) {
    this.observer = new ResizeObserver(() => this.arrange());
    this.observer.observe(list);
  }

  add(tile: HTMLElement, first: boolean): void {
    if (first) this.list.prepend(tile);
    else this.list.append(tile);
    this.arrange();
  }

  remove(tile: HTMLElement): void {
    tile.remove();
    this.arrange();
  }

  close(): void {
    this.observer.disconnect();
    this.list.replaceChildren();
  }

  private arrange(): void {
    const style = getComputedStyle(this.list);
    const width = this.list.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const tile = Math.floor(largestTile(this.list.childElementCount, width, this.list.clientHeight));
    this.list.style.setProperty('--tile', `${Math.max(tile, Math.min(width, TILE_MIN_PX))}px`);
  }
}

/** Width at which `count` tiles fill the space best. */
function largestTile(count: number, width: number, height: number): number {
  let largest = 0;
  for (let columns = 1; columns <= Math.max(1, count); columns += 1) {
    const rows = Math.ceil(count / columns);
    const byWidth = (width - GAP_PX * (columns - 1)) / columns;
    const byHeight = ((height - GAP_PX * (rows - 1)) / rows) * ASPECT;
    largest = Math.max(largest, Math.min(byWidth, byHeight));
  }
  return largest;
}
