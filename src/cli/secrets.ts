/** Taking credentials out of a text that others will read. */

const BLACK = "[secret]";

/**
 * Blackens user and password in addresses, what follows "Authorization" and "Bearer", and values of names that
 * sound like secrets (password, token, …), in JSON, headers, flags and variables.
 */
export function withoutSecrets(text: string): string {
  return text
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@"']+@/gi, `$1${BLACK}@`)
    .replace(/\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}/gi, `$1 ${BLACK}`)
    .replace(
      /(["']?[\w-]*(?:password|passwd|secret|token|authorization|api[_-]?key|credential)[\w-]*["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;}]+)/gi,
      `$1"${BLACK}"`,
    );
}
