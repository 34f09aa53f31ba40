import { describe, expect, it } from "vitest";
import { formatRanges, idMapAlterations, parseIdMaps } from "../../../src/views/id-maps.js";

const refused = (uids: string[], gids: string[] = []) =>
  expect(() => parseIdMaps(uids, gids)).toThrowError(
    expect.objectContaining({ code: "INVALID_ARGUMENT" }) as Error,
  );

describe("parseIdMaps", () => {
  it("reads podman's spelling, with one ID where there is no count", () => {
    const maps = parseIdMaps(["0:1000", "1:100000:65536"], ["0:5:1"]);
    expect(maps?.uids).toEqual([
      { disk: 0, shown: 1000, size: 1 },
      { disk: 1, shown: 100000, size: 65536 },
    ]);
    expect(formatRanges(maps!.uids)).toEqual(["0:1000:1", "1:100000:65536"]);
    expect(maps?.gids).toEqual([{ disk: 0, shown: 5, size: 1 }]);
  });

  it("takes users' mapping for groups, and the other way round; none is none", () => {
    expect(parseIdMaps(["0:7:9"], [])?.gids).toEqual([{ disk: 0, shown: 7, size: 9 }]);
    expect(parseIdMaps([], ["0:7:9"])?.uids).toEqual([{ disk: 0, shown: 7, size: 9 }]);
    expect(parseIdMaps([], [])).toBeUndefined();
  });

  it.each(["", "0", "0:1:2:3", "a:1:1", "0:1:0", "-1:0:1", "0:4294967295:1", "0:1:99999999999"])(
    "refuses %j",
    (text) => refused([text]),
  );

  it("refuses IDs that are mapped twice, on either side", () => {
    refused(["0:100:10", "5:200:10"]);
    refused(["0:100:10", "50:105:10"]);
    refused(Array.from({ length: 341 }, (_, at) => `${at}:${at}:1`));
  });
});

describe("the translation", () => {
  it("shows each range elsewhere, and what is in none as nobody's", () => {
    const { uids } = idMapAlterations(parseIdMaps(["0:100000:1000", "1000:5:1"], [])!);
    expect([0, 999, 1000, 1001].map((id) => uids.toShown(id))).toEqual([100000, 100999, 5, 65534]);
    expect([100000, 5, 0, 101000].map((id) => uids.toDisk(id))).toEqual([0, 1000, -1, -1]);
  });
});
