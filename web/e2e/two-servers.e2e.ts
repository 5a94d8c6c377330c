/**
 * The main job: two organizations, two browsers, one sealed conversation, in which neither server can read a word.
 * With SCREENSHOTS set it also writes the pictures of docs/screenshots.
 */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { desktop, launch, phone } from "./browser.ts";
import { Person } from "./person.ts";
import { findIn } from "./search.ts";
import { type Pair, startPair } from "./servers.ts";

const shots =
  process.env["SCREENSHOTS"] === undefined ? null : new URL("../../docs/screenshots/", import.meta.url).pathname;

let servers: Pair;
let browser: Browser;
let alice: Person;
let bob: Person;

const room = "Harbour inspection";

/** Ten messages each way, in the order in which they are said. */
const said: { by: "alice" | "bob"; text: string }[] = [
  { by: "alice", text: "Good morning Bob, the harbour authority moved the inspection to Thursday, nine o'clock." },
  { by: "bob", text: "Morning! Thursday suits us, the tide is low until noon." },
  { by: "alice", text: "Who brings the signed drawings? They only accept paper." },
  { by: "bob", text: "I have three sets, with the coffee stain only on the third." },
  { by: "alice", text: "Then please bring the first two." },
  { by: "bob", text: "The crane is booked for Wednesday at seven." },
  { by: "alice", text: "Paid until when?" },
  { by: "bob", text: "Until Friday noon, so there is a day to spare." },
  { by: "alice", text: "That saves us the second mooring. Numbers in our plan are updated." },
  { by: "bob", text: "I tell the pilots this afternoon." },
  { by: "alice", text: "And the insurer?" },
  { by: "bob", text: "Already knows, and wants photographs of the east quay." },
  { by: "alice", text: "I walk there in a minute anyway." },
  { by: "bob", text: "Mind the wet planks behind the second bollard." },
  { by: "alice", text: "Thank you, I remember them well." },
  { by: "bob", text: "Everybody does who has met them." },
  { by: "alice", text: "One more thing: the gate code changes on Wednesday evening." },
  { by: "bob", text: "Please send me the new one in here, not by mail." },
  { by: "alice", text: "It is heron four seven one nine." },
  { by: "bob", text: "Noted. See you on Thursday, with biscuits." },
];
const whileAway = [
  "Bob, the pilots ask for half an hour more.",
  "I told them yes, since the tide allows it.",
  "So we meet at half past eight at the gate.",
];
const pictures = { alice: "east-quay-at-dawn.png", bob: "second-bollard-wet-planks.png" };
const bytes = new Map<string, Buffer>();

beforeAll(async () => {
  servers = await startPair();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await servers?.end();
});

// What the two saw when something failed says more than the line that failed.
afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  for (const person of [alice, bob]) {
    if (person === undefined) continue;
    const file = path.join(tmpdir(), `conclave-e2e-${person.name}.png`);
    await person.page.screenshot({ path: file }).catch(() => undefined);
    console.log(`${person.name} saw ${file}\n${person.problems.join("\n")}`);
  }
});

/** A picture that compresses badly, painted in the page: no two runs have the same bytes. */
async function paint(page: Page, seed: number): Promise<Buffer> {
  const url = await page.evaluate(async (hue) => {
    const [width, height] = [960, 600];
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const g = canvas.getContext("2d");
    if (g === null) throw new Error("no canvas");
    const sky = g.createLinearGradient(0, 0, 0, height * 0.6);
    sky.addColorStop(0, `hsl(${225 + hue} 48% 26%)`);
    sky.addColorStop(0.6, `hsl(${290 + hue} 24% 55%)`);
    sky.addColorStop(1, `hsl(${24 + hue} 80% 73%)`);
    g.fillStyle = sky;
    g.fillRect(0, 0, width, height * 0.6);
    const sea = g.createLinearGradient(0, height * 0.6, 0, height);
    sea.addColorStop(0, `hsl(${16 + hue} 40% 62%)`);
    sea.addColorStop(0.3, `hsl(${222 + hue} 26% 41%)`);
    sea.addColorStop(1, `hsl(${222 + hue} 48% 16%)`);
    g.fillStyle = sea;
    g.fillRect(0, height * 0.6, width, height * 0.4);
    g.fillStyle = "#ffe6bd";
    g.beginPath();
    g.arc(width * 0.68, height * 0.54, 34, 0, Math.PI * 2);
    g.fill();
    g.fillStyle = "#181e33";
    g.fillRect(0, height * 0.585, width * 0.44, 26);
    for (const x of [0.1, 0.27]) {
      g.fillRect(width * x, height * 0.26, 10, height * 0.33);
      g.fillRect(width * (x - 0.04), height * 0.26, width * 0.17, 8);
    }
    const image = g.getImageData(0, 0, width, height);
    const noise = crypto.getRandomValues(new Uint8Array(65_536));
    for (let i = 0; i < image.data.length; i += 4) {
      const d = ((noise[(i / 4) % noise.length] ?? 0) % 9) - 4;
      for (let c = 0; c < 3; c++) image.data[i + c] = (image.data[i + c] ?? 0) + d;
    }
    g.putImageData(image, 0, 0);
    const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
    if (blob === null) throw new Error("no picture");
    const raw = new Uint8Array(await blob.arrayBuffer());
    let text = "";
    for (const byte of raw) text += String.fromCharCode(byte);
    return btoa(text);
  }, seed);
  return Buffer.from(url, "base64");
}

async function shoot(page: Page, name: string): Promise<void> {
  if (shots === null) return;
  await mkdir(shots, { recursive: true });
  await page.evaluate(() => document.fonts.ready);
  await page.screenshot({ path: path.join(shots, `${name}.png`) });
}

test("both register and keep their recovery keys", async () => {
  alice = await Person.arrive(browser, "alice", servers.a.url);
  bob = await Person.arrive(browser, "bob", servers.b.url);
  await alice.register(`Correct-${randomBytes(9).toString("hex")}`, (page) => shoot(page, "sign-up"));
  await bob.register(`Correct-${randomBytes(9).toString("hex")}`);
});

test("Alice opens a sealed room and Bob of the other organization joins it", async () => {
  await alice.createGroup(room, [`@bob:${servers.b.name}`]);
  await bob.accept(room);
  for (const person of [alice, bob]) {
    await person.page.locator('[data-testid="shield"][data-sealed="true"]').waitFor();
  }
  await alice.page.getByText("bob joined", { exact: true }).first().waitFor();
});

test("ten messages and a picture go each way, live", async () => {
  for (const { by, text } of said) {
    const [from, to] = by === "alice" ? [alice, bob] : [bob, alice];
    await from.say(text);
    await to.sees(text);
  }
  for (const [from, to, name, seed] of [
    [alice, bob, pictures.alice, 0],
    [bob, alice, pictures.bob, 40],
  ] as const) {
    const picture = await paint(from.page, seed);
    bytes.set(name, picture);
    await from.sendFile(name, "image/png", picture);
    await to.seesPicture(name);
    await from.seesPicture(name);
  }
});

test("ticks change to delivered, and to read once it is read", async () => {
  const text = "Are you still at your desk?";
  said.push({ by: "alice", text });
  await bob.page.goto(servers.b.url);
  await bob.row(room).waitFor();
  await alice.say(text);
  await alice.reached(text, "delivered");
  await bob.row(room).getByRole("img", { name: "1 unread message" }).waitFor();
  await bob.row(room).click();
  await bob.sees(text);
  await alice.reached(text, "read");
});

test("both reload and still read everything", async () => {
  for (const person of [alice, bob]) {
    await person.page.reload();
    await person.sees(said.at(-1)?.text ?? "");
    const everything = await person.everything();
    const missing = said.filter(({ text }) => !everything.includes(text)).map(({ text }) => text);
    expect({ [person.name]: missing }).toEqual({ [person.name]: [] });
    for (const name of Object.values(pictures)) expect(everything).toContain(name);
  }
});

test("the newest message stays in sight however large the window is", async () => {
  const newest = alice.message(said.at(-1)?.text ?? "");
  for (const size of [phone, desktop, phone, { width: 600, height: 500 }, desktop]) {
    await alice.page.setViewportSize(size);
    await expect.poll(() => newest.evaluate(isWhollyInSight), { timeout: 45_000 }).toBe(true);
  }
});

test("what is written while Bob's server is away arrives once it is back", async () => {
  await servers.b.stop();
  await bob.page.locator('[data-connection="offline"]').waitFor();
  for (const text of whileAway) {
    await alice.say(text);
    await alice.reached(text, "sent");
  }
  await servers.b.start();
  for (const text of whileAway) await bob.sees(text, 180_000);
  await alice.reached(whileAway[2] ?? "", "read");
});

test("no server holds a word of it", async () => {
  if (shots !== null) await pictureEverything();
  await Promise.all([servers.a.stop(), servers.b.stop()]);
  const secrets = new Map<string, Buffer>();
  for (const text of [...said.map((each) => each.text), ...whileAway]) secrets.set(text, Buffer.from(text));
  for (const [name, picture] of bytes) {
    secrets.set(name, Buffer.from(name));
    // From the middle of the compressed pixels, where nothing is the same in every picture.
    const middle = Math.floor(picture.length / 2);
    secrets.set(`bytes of ${name}`, picture.subarray(middle, middle + 48));
  }
  expect(await findIn(servers.dir, secrets)).toEqual([]);
  // The search itself must be able to find: both servers know the name of the room's server and the members.
  const control = new Map([["a known name", Buffer.from(`@bob:${servers.b.name}`)]]);
  expect((await findIn(servers.dir, control)).length).toBeGreaterThan(1);
});

test("nothing broke in the pages, and their policy refused nothing", () => {
  expect([...alice.problems, ...bob.problems]).toEqual([]);
});

/** Everybody's day, so that the pictures show what a list of conversations looks like: read, unread, begun, offered. */
async function liveOn(): Promise<void> {
  for (const name of ["Pilots and tugs", "Board", "Kitchen, third floor"]) {
    await alice.createGroup(name, []);
    await alice.say(`Welcome to ${name}.`);
    await alice.reached(`Welcome to ${name}.`, "sent");
  }
  await bob.createGroup("Insurance", [`@alice:${servers.a.name}`]);
  await alice.accept("Insurance");
  await alice.row("Board").click();
  await alice.room("Board");
  await alice.page.getByRole("textbox", { name: /^Write to/ }).fill("The vote is open until six.");
  await bob.say("The photographs reached the insurer.");
  await bob.say("They ask for one more, of the gate.");
  await bob.createGroup("Tide tables", [`@alice:${servers.a.name}`]);
  await alice.row("Tide tables").waitFor();
  await alice.row("Insurance").getByRole("img", { name: "2 unread messages" }).waitFor();
}

async function pictureEverything(): Promise<void> {
  await liveOn();
  const { page } = alice;
  await page.goto(servers.a.url);
  await alice.row("Insurance").getByRole("img", { name: "2 unread messages" }).waitFor();
  await shoot(page, "room-list");
  await alice.row(room).click();
  await alice.room(room);
  for (const scheme of ["light", "dark"] as const) {
    for (const [device, size] of [
      ["desktop", desktop],
      ["phone", phone],
    ] as const) {
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      await page.setViewportSize(size);
      await page.mouse.move(0, 0); // nothing hovers
      await alice.message(whileAway[2] ?? "").waitFor();
      expect(await alice.message(whileAway[2] ?? "").evaluate(isWhollyInSight)).toBe(true);
      await shoot(page, `timeline-${device}-${scheme}`);
    }
  }
}

/** Whether the timeline shows an element from top to bottom, once it has come to rest. */
async function isWhollyInSight(element: Element): Promise<boolean> {
  const frame = element.closest("[data-testid=virtuoso-scroller]")?.getBoundingClientRect();
  const box = (): DOMRect => element.getBoundingClientRect();
  for (let before = -1; before !== box().top;) {
    before = box().top;
    await new Promise((next) => setTimeout(next, 250)); // the list measures anew
  }
  return frame !== undefined && box().top >= frame.top && box().bottom <= frame.bottom;
}
