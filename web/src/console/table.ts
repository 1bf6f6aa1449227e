import { make } from '../dom';

/** One column: how it is called, what stands in it, and how it looks. */
export interface Column<T> {
  title: string;
  cell: (row: T) => Node | string;
  /** Numbers stand at the right. */
  number?: boolean;
  /** Name by which the server orders. */
  sort?: string;
}

export interface Order {
  sort: string;
  descending: boolean;
}

/** Puts a table, or a sentence when there are no rows, in place of what was there. */
export function show<T>(
  place: HTMLElement,
  columns: Column<T>[],
  rows: T[],
  empty: Node | string,
  { testid, order, onSort }: { testid: string; order?: Order; onSort?: (sort: string) => void },
): void {
  if (rows.length === 0) {
    place.replaceChildren(make('p', 'empty', empty));
    return;
  }
  // A head that has the focus keeps it when the table is drawn anew.
  const focused = place.contains(document.activeElement) ? document.activeElement?.getAttribute('data-key') : null;
  const table = make('table', '');
  const head = make('tr', '', ...columns.map((column) => headOf(column, order, onSort)));
  table.append(make('thead', '', head));
  const body = make('tbody', '');
  for (const row of rows) {
    const line = make('tr', '', ...columns.map((column) => cellOf(column, row)));
    line.dataset.testid = testid;
    body.append(line);
  }
  table.append(body);
  place.replaceChildren(table);
  if (focused) place.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function headOf<T>(column: Column<T>, order?: Order, onSort?: (sort: string) => void): HTMLElement {
  const head = make('th', column.number ? 'number' : '');
  head.scope = 'col';
  const sort = column.sort;
  if (!sort || !order || !onSort) {
    head.append(column.title);
    return head;
  }
  const button = make('button', 'sort', column.title);
  button.type = 'button';
  button.dataset.key = `sort-${sort}`;
  button.dataset.testid = `sort-${sort}`;
  const chosen = order.sort === sort;
  head.ariaSort = chosen ? (order.descending ? 'descending' : 'ascending') : 'none';
  button.append(make('span', 'arrow', chosen ? (order.descending ? '↓' : '↑') : ''));
  button.addEventListener('click', () => onSort(sort));
  head.append(button);
  return head;
}

function cellOf<T>(column: Column<T>, row: T): HTMLElement {
  const cell = make('td', column.number ? 'number' : '', column.cell(row));
  cell.dataset.label = column.title;
  return cell;
}
