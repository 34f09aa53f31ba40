/** What the middle of the page shows: one of several panels. */

/** One of them, while it is shown. */
export interface Panel {
  /** Something that it shows has changed. */
  refresh(): void;
  /** A key that the page itself does not know; true when the panel does. */
  onKey(event: KeyboardEvent): boolean;
  close(): void;
}
