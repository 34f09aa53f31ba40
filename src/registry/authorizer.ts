/**
 * Answers a host's challenges: Basic as it is, Bearer with a token from where the challenge says.
 *
 * @see distribution, "Token Authentication Specification" and "OAuth2"
 */

import { PermissionDeniedError } from "../system/errors.js";
import type { Credentials } from "./access.js";
import { type Challenge, parseChallenges } from "./challenge.js";
import { answerFailure } from "./failures.js";

/** One plain request: no retries, no redirects, no authorization of its own. */
export type PlainRequest = (request: {
  readonly method: "GET" | "POST";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}) => Promise<{
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}>;

interface Token {
  readonly value: string;
  readonly expiresMs: number;
  /** What a login is given to keep in the password's stead. */
  readonly identityToken?: string;
}

const CLIENT_ID = "varve";
/** The specification's default. */
const TOKEN_SECONDS = 60;
/** Tokens are renewed before they end, as the registry's clock may differ and requests take time. */
const EARLY = 0.1;

/** The authorization of one host for one caller. */
export class Authorizer {
  readonly #send: PlainRequest;
  readonly #credentials: () => Promise<Credentials | undefined>;
  /** The host's origin: where the user's password may go unencrypted if this is unencrypted. */
  readonly #origin: () => string;
  readonly #wantsIdentity: boolean;
  #challenge: Challenge | undefined;
  /** By scopes; promises, so that many requests at once cause one for a token. */
  readonly #tokens = new Map<string, Promise<Token>>();

  constructor(o: {
    send: PlainRequest;
    credentials: () => Promise<Credentials | undefined>;
    origin: () => string;
    /** Ask for a token that can be kept (`varve login`). */
    wantsIdentity?: boolean;
  }) {
    this.#send = o.send;
    this.#credentials = o.credentials;
    this.#origin = o.origin;
    this.#wantsIdentity = o.wantsIdentity ?? false;
  }

  /**
   * The Authorization header for a request; undefined before the first challenge.
   *
   * @throws PermissionDeniedError no credentials, or the token server refuses them
   * @throws UnavailableError the token server cannot be reached
   */
  async header(scopes: readonly string[]): Promise<string | undefined> {
    const challenge = this.#challenge;
    if (challenge === undefined) return undefined;
    if (challenge.scheme === "basic") return await this.#basic();
    return `Bearer ${(await this.#token(challenge, scopes)).value}`;
  }

  /**
   * Takes note of a 401.
   *
   * @param rejected the Authorization header that was not good enough
   * @returns false when asking again would be the same request
   */
  challenged(
    header: string | string[] | undefined,
    scopes: readonly string[],
    rejected: string | undefined,
  ): boolean {
    const challenges = parseChallenges(header);
    const chosen =
      challenges.find(({ scheme, parameters }) => scheme === "bearer" && parameters.realm) ??
      challenges.find(({ scheme }) => scheme === "basic");
    if (chosen === undefined) return false;
    const wasKnown = this.#challenge !== undefined && rejected !== undefined;
    this.#challenge = chosen;
    if (chosen.scheme === "basic") return !wasKnown;
    // An expired token, or one whose scope was too narrow.
    this.#tokens.delete(scopes.join(" "));
    return true;
  }

  /** The identity token that came with the last token; undefined where the server gives none. */
  async identityToken(scopes: readonly string[]): Promise<string | undefined> {
    return (await this.#tokens.get(scopes.join(" ")))?.identityToken;
  }

  async #basic(): Promise<string | undefined> {
    const credentials = await this.#credentials();
    if (credentials === undefined || !("username" in credentials)) return undefined;
    return basicHeader(credentials);
  }

  async #token(challenge: Challenge, scopes: readonly string[]): Promise<Token> {
    const key = scopes.join(" ");
    const known = this.#tokens.get(key);
    if (known !== undefined) {
      const token = await known.catch(() => undefined);
      if (token !== undefined && token.expiresMs > Date.now()) return token;
      // Of many that found it expired, the first asks for a new one.
      if (this.#tokens.get(key) === known) this.#tokens.delete(key);
      return await this.#token(challenge, scopes);
    }
    const token = this.#fetchToken(challenge, scopes);
    this.#tokens.set(key, token);
    token.catch(() => {
      if (this.#tokens.get(key) === token) this.#tokens.delete(key);
    });
    return await token;
  }

  async #fetchToken({ parameters }: Challenge, scopes: readonly string[]): Promise<Token> {
    const credentials = await this.#credentials();
    if (credentials !== undefined && "registryToken" in credentials) {
      return { value: credentials.registryToken, expiresMs: Number.POSITIVE_INFINITY };
    }
    const { realm = "", service = "" } = parameters;
    const url = this.#checkRealm(realm, credentials !== undefined);
    const wanted = scopes.length > 0 ? [...scopes] : (parameters.scope?.split(" ") ?? []);
    const answer =
      credentials !== undefined && "identityToken" in credentials
        ? await this.#refresh(url, service, wanted, credentials.identityToken)
        : await this.#ask(url, service, wanted, credentials);
    const what = `get a token from ${url.origin}${url.pathname}`;
    if (answer.status !== 200) throw answerFailure(answer, what);
    return parseToken(answer.body, what);
  }

  #checkRealm(realm: string, hasSecret: boolean): URL {
    if (!URL.canParse(realm) || !/^https?:/.test(realm)) {
      throw new PermissionDeniedError(
        `${this.#origin()}: asks for a token from ${JSON.stringify(realm)}, which is no address`,
      );
    }
    const url = new URL(realm);
    if (hasSecret && this.#origin().startsWith("https:") && url.protocol === "http:") {
      throw new PermissionDeniedError(
        `${this.#origin()}: asks to send the password unencrypted to ${url.origin}; refused`,
      );
    }
    return url;
  }

  #ask(url: URL, service: string, scopes: string[], credentials: Credentials | undefined) {
    const target = new URL(url);
    if (service !== "") target.searchParams.set("service", service);
    for (const scope of scopes) target.searchParams.append("scope", scope);
    const headers: Record<string, string> = {};
    if (credentials !== undefined && "username" in credentials) {
      target.searchParams.set("account", credentials.username);
      headers.authorization = basicHeader(credentials);
    }
    if (this.#wantsIdentity) {
      target.searchParams.set("offline_token", "true");
      target.searchParams.set("client_id", CLIENT_ID);
    }
    return this.#send({ method: "GET", url: target.href, headers });
  }

  #refresh(url: URL, service: string, scopes: string[], identityToken: string) {
    const form = new URLSearchParams({
      grant_type: "refresh_token",
      service,
      client_id: CLIENT_ID,
      refresh_token: identityToken,
      scope: scopes.join(" "),
    });
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return this.#send({ method: "POST", url: url.href, headers, body: form.toString() });
  }
}

function basicHeader(credentials: { username: string; password: string }): string {
  const text = `${credentials.username}:${credentials.password}`;
  return `Basic ${Buffer.from(text).toString("base64")}`;
}

function parseToken(body: string, what: string): Token {
  let answer: Record<string, unknown>;
  try {
    answer = JSON.parse(body) as Record<string, unknown>;
  } catch {
    throw new PermissionDeniedError(`${what}: the answer is not JSON`);
  }
  const value = answer.token || answer.access_token;
  if (typeof value !== "string" || !/^[\x21-\x7e]+$/.test(value)) {
    throw new PermissionDeniedError(`${what}: the answer has no token`);
  }
  const seconds = typeof answer.expires_in === "number" ? answer.expires_in : TOKEN_SECONDS;
  const lifetimeMs = Math.max(0, seconds) * 1000 * (1 - EARLY);
  const { refresh_token: refreshToken } = answer;
  return {
    value,
    // At least one request gets it, or a server with zero seconds would make a loop of this.
    expiresMs: Date.now() + Math.max(lifetimeMs, 1000),
    ...(typeof refreshToken === "string" ? { identityToken: refreshToken } : {}),
  };
}
