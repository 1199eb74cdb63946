import { describe, expect, test } from "vitest";
import { hubOrigin } from "../src/hub";

const OWN = "https://dashboard.example.org";
const HUB = "https://hub.example.org";

describe("hub", () => {
  test("is the page's own origin unless the page names another", () => {
    expect(hubOrigin(undefined, "", OWN)).toBe(OWN);
    expect(hubOrigin("", "?range=7d", OWN)).toBe(OWN);
  });

  test("is named by a meta element or in the query", () => {
    expect(hubOrigin(`${HUB}/`, "", OWN)).toBe(HUB);
    expect(hubOrigin(undefined, `?hub=${encodeURIComponent(HUB)}`, OWN)).toBe(HUB);
  });

  test("of a configured page cannot be changed by a link", () => {
    expect(hubOrigin(HUB, "?hub=https://other.example.org", OWN)).toBe(HUB);
  });

  test("must be an http(s) URL", () => {
    for (const text of ["hub.example.org", "javascript:alert(1)", "ftp://hub.example.org"]) {
      expect(() => hubOrigin(undefined, `?hub=${text}`, OWN)).toThrow(/http/);
    }
  });
});
