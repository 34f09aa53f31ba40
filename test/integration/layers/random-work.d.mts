export const OPERATIONS: number;
export function perform(
  root: string,
  step: readonly [operation: number, first: number, second: number],
): void;
