/** A bounded queue between work and the stream that tells of it. */

const CAPACITY = 64;

/** Items in their order; whoever `push`es waits while the reader is far behind. One reader. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  #outcome: { error?: unknown } | undefined;
  #isLeft = false;
  #wakeReader: () => void = () => undefined;
  #wakeWriters: (() => void)[] = [];

  /** Adds an item; resolves when there is room for another, or when the reader has left. */
  async push(item: T): Promise<void> {
    if (this.#isLeft) return;
    this.#items.push(item);
    this.#wakeReader();
    if (this.#items.length < CAPACITY) return;
    await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
  }

  /** Ends the stream, after the items that are waiting, well or with an error. */
  end(outcome: { error?: unknown } = {}): void {
    this.#outcome = outcome;
    this.#wakeReader();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    try {
      for (;;) {
        if (this.#items.length > 0) {
          const item = this.#items.shift()!;
          if (this.#items.length < CAPACITY) this.#release();
          yield item;
        } else if (this.#outcome !== undefined) {
          if ("error" in this.#outcome) throw this.#outcome.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wakeReader = resolve;
          });
        }
      }
    } finally {
      this.#isLeft = true;
      this.#release();
    }
  }

  #release(): void {
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }
}
