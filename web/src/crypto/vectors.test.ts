import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { named, runCase, type VectorCase } from "./testing/vectors";
import { writeVectors } from "./testing/write";

// UPDATE_VECTORS=1 npx vitest run src/crypto writes ts.json anew.
const own = new URL("./testdata/ts.json", import.meta.url);
const files = { go: new URL("../../../keys/sealed/testdata/go.json", import.meta.url), ts: own };

if (process.env["UPDATE_VECTORS"]) {
  writeFileSync(own, `[\n${(await writeVectors()).map((vector) => JSON.stringify(vector)).join(",\n")}\n]\n`);
}

async function check(vector: VectorCase): Promise<void> {
  const result = await runCase(vector);
  if (vector.failure !== undefined) expect(result).toEqual({ failure: vector.failure });
  else if (!("output" in result)) expect(result).toEqual({ output: vector.expect });
  else expect(named(result.output, vector.expect ?? {})).toEqual(vector.expect);
}

for (const [side, url] of Object.entries(files)) {
  const vectors = JSON.parse(readFileSync(url, "utf8")) as VectorCase[];
  describe(`vectors written by ${side}`, () => {
    test("are there, of every kind", () => {
      expect(new Set(vectors.map((vector) => vector.kind)).size).toBe(10);
      expect(vectors.length).toBeGreaterThan(80);
    });
    test.each(vectors.map((vector): [string, VectorCase] => [vector.name, vector]))("%s", (_name, vector) =>
      check(vector),
    );
  });
}

// The file on disk was made once; this holds the code that seals and encrypts today against the code that opens.
test("vectors made now open", async () => {
  for (const vector of await writeVectors()) await check(vector);
});
