/**
 * WWW-Authenticate headers.
 *
 * @see RFC 9110, 11.6.1; distribution, "Token Authentication Specification"
 */

/** One challenge: the scheme in lower case, its parameters by lower-case name. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const PARAMETER = /\s*,?\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))/y;

/** The challenges of a header, in order; what does not follow the grammar ends the list. */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  if (header === undefined) return [];
  if (typeof header !== "string") return header.flatMap((one) => parseChallenges(one));
  const challenges: Challenge[] = [];
  let position = 0;
  for (;;) {
    position += /^[\s,]*/.exec(header.slice(position))![0].length;
    TOKEN.lastIndex = position;
    const scheme = TOKEN.exec(header)?.[0];
    if (scheme === undefined) return challenges;
    position += scheme.length;
    const parameters: Record<string, string> = {};
    for (;;) {
      PARAMETER.lastIndex = position;
      const match = PARAMETER.exec(header);
      if (match === null) break;
      const [whole, name = "", quoted, plain] = match;
      parameters[name.toLowerCase()] = quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "";
      position += whole.length;
    }
    challenges.push({ scheme: scheme.toLowerCase(), parameters });
  }
}
