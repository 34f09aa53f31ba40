/** Where the connections of mounted views are kept for the next daemon. */

import { sys } from "../system/addon.js";
import { must } from "../system/errno.js";
import type { ServiceManager } from "../system/service-manager.js";

/** A process other than the daemon that holds descriptors; varve-keeper, or the service manager. */
export interface DescriptorStore {
  /** This is the daemon at work; `command` starts another one (empty: somebody else does). @throws SyscallError */
  introduce(command: readonly string[]): void;
  /** Gives a descriptor to keep; the caller still owns its own. @throws SyscallError */
  put(name: string, descriptor: number): void;
  /** @throws SyscallError */
  drop(name: string): void;
  /** Everything kept: the descriptors are the caller's. @throws SyscallError */
  all(): Map<string, number>;
  /** This daemon ends on purpose: no other is to be started. @throws SyscallError */
  sayGoodbye(): void;
  /** True when it is there. */
  isAlive(): boolean;
  close(): void;
}

const PREFIX = "varve-";

/** systemd's file descriptor store. It starts the next daemon by itself, and outlives everything. */
export class ServiceManagerStore implements DescriptorStore {
  readonly #manager: ServiceManager;
  /** What is kept, since nobody gives it back while this process lives. */
  readonly #held = new Map<string, number>();

  constructor(manager: ServiceManager) {
    this.#manager = manager;
    for (const [name, descriptor] of manager.kept) {
      if (name.startsWith(PREFIX)) this.#held.set(name.slice(PREFIX.length), descriptor);
      else sys.close(descriptor);
    }
  }

  introduce(): void {}

  put(name: string, descriptor: number): void {
    this.drop(name);
    this.#held.set(name, must(sys.duplicate(descriptor), "fcntl", name));
    this.#manager.keep(PREFIX + name, descriptor);
  }

  drop(name: string): void {
    const descriptor = this.#held.get(name);
    if (descriptor === undefined) return;
    this.#held.delete(name);
    sys.close(descriptor);
    this.#manager.drop(PREFIX + name);
  }

  all(): Map<string, number> {
    const copies = new Map<string, number>();
    for (const [name, descriptor] of this.#held) {
      copies.set(name, must(sys.duplicate(descriptor), "fcntl", name));
    }
    return copies;
  }

  sayGoodbye(): void {}

  isAlive(): boolean {
    return true;
  }

  close(): void {
    for (const descriptor of this.#held.values()) sys.close(descriptor);
    this.#held.clear();
  }
}
