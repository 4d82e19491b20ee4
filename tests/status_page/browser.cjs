// A browser for the tests of the status page, and what every page is asked: nothing asked of anybody else, no error in the
// console, readable in both colour schemes, nothing wider than the screen.
//
// Debian's chromium, driven by playwright-core, which downloads no browser of its own.

const assert = require("node:assert");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { chromium } = require("playwright-core");

const CHROMIUM = "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];
const PATIENCE_MILLISECONDS = 30_000;
/** WCAG 2, level AA, for text of ordinary size. */
const CONTRAST = 4.5;

/** Starts the browser with an empty profile; `close` ends it and removes the profile. */
async function start(screenshots) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "portcullis-chromium-"));
  const context = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: FLAGS, headless: true, viewport: { width: 1280, height: 900 }, timeout: PATIENCE_MILLISECONDS });
  context.setDefaultTimeout(PATIENCE_MILLISECONDS);
  if (screenshots) fs.mkdirSync(screenshots, { recursive: true });
  const close = async () => {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { open: (url) => open(context, url, screenshots), close };
}

/** Opens the page in a tab that books requests and complaints. */
async function open(context, url, screenshots) {
  const page = await context.newPage();
  const strangers = [];
  const complaints = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) strangers.push(request.url());
  });
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error.stack)));
  await page.goto(url);
  const text = (selector) => page.locator(selector).innerText();
  const has = (selector, wanted) => page.locator(selector).filter({ hasText: wanted }).first().waitFor();
  const picture = (name) => screenshots && page.screenshot({ path: path.join(screenshots, `${name}.png`), fullPage: true });
  /** To be called at the end of each state; `expected` are complaints that the state is about. */
  const calm = (expected = /^$/) => {
    assert.deepStrictEqual(strangers, [], "the page asks nobody but the broker");
    assert.deepStrictEqual(complaints.filter((line) => !expected.test(line)), []);
    complaints.length = 0;
  };
  return { page, text, has, picture, calm };
}

/** How many pixels the page is wider than the screen. */
const overhang = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** Texts whose contrast with what they stand on is too low: `[contrast, text]`. */
function faint(page) {
  return page.evaluate((least) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const pixel = (colours) => {
      canvas.clearRect(0, 0, 1, 1);
      for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => [r, g, b].map((part) => part / 255).map((part) => (part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)).reduce((sum, part, at) => sum + part * [.2126, .7152, .0722][at], 0);
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const element = walk.currentNode.parentElement;
      if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, noscript, [disabled]")) continue;
      const grounds = [];
      for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
      const style = getComputedStyle(element);
      const ground = pixel(["white", ...grounds]);
      const text = pixel(["white", ...grounds, element.namespaceURI.endsWith("svg") ? style.fill : style.color]);
      const [dark, light] = [luminance(ground), luminance(text)].sort((a, b) => a - b);
      const contrast = (light + .05) / (dark + .05);
      if (contrast < least) found.push([contrast.toFixed(2), walk.currentNode.data.slice(0, 40)]);
    }
    return found;
  }, CONTRAST);
}

/** Both colour schemes are readable, by the system's wish and by the button; and nothing is wider than a phone of 320 pixels. */
async function readable({ page, picture }, name) {
  const size = page.viewportSize();
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    assert.deepStrictEqual(await faint(page), [], `${name}, ${colorScheme}`);
    await picture(`${name}-${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  for (const width of [320, 768, 970, 1100, 1280]) {
    await page.setViewportSize({ width, height: 900 });
    assert.ok((await overhang(page)) <= 0, `${name}: ${await overhang(page)} pixels too wide at ${width}`);
    if (width === 320) await picture(`${name}-phone`);
  }
  await page.setViewportSize(size);
}

module.exports = { CHROMIUM, PATIENCE_MILLISECONDS, faint, overhang, readable, start };
