// The status page against made-up answers: each state that a broker can be in, and names that mean harm.
//
// Usage: node made_up.cjs PAGE [SCREENSHOTS] (with NODE_PATH to playwright-core)
// Prints one line for each thing that holds; ends with code 1 at the first that does not.

const assert = require("node:assert");
const { HOSTILE, clients, degraded, fine, historyOf, hostile, serve } = require("./fixtures.cjs");
const { readable, start } = require("./browser.cjs");

const [file, screenshots] = process.argv.slice(2);
const NETWORK = /Failed to load resource/;

const STEPS = {
  async "a broker that is well"({ tab, broker }) {
    await tab.has("#list", "sensor-0001");
    assert.match(await tab.text("#health"), /Available\s*Ready for clients, up for 3 d 5 h/);
    assert.match(await tab.text("#attention"), /Nothing needs attention/);
    assert.match(await tab.text("#tiles"), /Connections\s*46/);
    assert.match(await tab.text("#listeners"), /mqtts-endpoint\s*8883\s*0\.0\.0\.0, ::\s*Mqtt\s*Manual\s*valid, ends in 189 d 23 h|190 d/);
    assert.match(await tab.text("#tables"), /subscriptions\s*180\s*4,096\s*4\.4 %\s*0/);
    assert.match(await tab.text("#store"), /sound/);
    assert.match(await tab.text("#checks"), /✓ passes listeners/);
    assert.match(await tab.text("#bridges"), /to-cluster\s*mqtts:\/\/aio-broker\.plant\.example:8883\s*Connected for 1 d/);
    assert.match(await tab.text("#broker"), /sha256:5d1e0cdb7b2f6a90/);
    assert.match(await tab.page.title(), /^Available/);
    assert.strictEqual(await tab.page.locator("#machine").isVisible(), false, "no image, no section");
    assert.ok(broker.state.most <= 2, `${broker.state.most} questions at a time`);
  },

  async "a broker with everything wrong"({ tab, broker }) {
    Object.assign(broker.state, { status: degraded(), history: historyOf(360, true) });
    await tab.has("#health", /Degraded.*Degraded since .*, before that Available/);
    await tab.page.reload();
    await tab.has("#attention", "Messages dropped in the last 10 minutes");
    const said = await tab.text("#attention");
    for (const part of [/Fault Check store fails: the disk refuses writes/, /Fault Probe: BrokerProbeFailed/, /Fault The durable log: failed/, /Fault Listener browsers, port 8443, waits/, /Fault Certificate browsers ended 2 d ago/,
      /Fault Certificate mqtts-endpoint ends soon in [45] d/, /Fault Bridge to-cluster: Disconnected for 31 min: connection refused/, /Fault Table subscriptions is 100 % full/, /Notice network: no cable at eth0/, /Notice update: version 8 went back/, /Notice The clock is not trusted/, /Notice Denials in the last 10 minutes/]) {
      assert.match(said, part);
    }
    assert.doesNotMatch(said, /Check machine/);
    assert.match(await tab.text("#machine"), /version\s*7\s*slot\s*a\s*trial\s*false\s*configuration\s*b\s*configuration version\s*3.*update\s*state\s*back\s*text\s*not ready within 300 s\s*version\s*8/s);
    assert.match(await tab.text("#denials tbody tr:nth-child(2)"), /heater-1\s*heater-1\s*subscribe health\/heartbeat\/1\s*mqtts-endpoint\s*abac-authz\.authorization\.json:21\s*the rule allows Publish of this, and not Subscribe, explain/);
  },

  async "why something was denied"({ tab, broker }) {
    broker.state.status = fine();
    await tab.has("#health", "Available");
    await tab.page.locator("#denials a").first().click();
    await tab.has("#panel-body", "no rule allows it to publish to 'telemetry/humidity'");
    assert.match(await tab.text("#panel-body"), /denied.*Nearest rules.*attribute 'group' is/s);
    assert.ok(broker.state.asked.includes("/api/v1/explain"));
    await tab.page.locator("#close").click();
  },

  async "a broker that goes and comes back"({ tab, broker }) {
    await tab.has("#list", "sensor-0001");
    broker.state.gone = true;
    await tab.has("#health", /No answer\s*The broker does not answer since \d\d:\d\d:\d\d\. Still asking/);
    assert.match(await tab.page.title(), /^No answer/);
    assert.match(await tab.text("#list"), /sensor-0001/);
    await readable(tab, "no-answer");
    broker.state.gone = false;
    broker.state.clients = [...clients(3), { ...clients(1)[0], clientId: "newcomer" }];
    await tab.has("#list", "newcomer");
    await tab.has("#health", "Available");
    return NETWORK;
  },

  async "nothing at all"({ tab, broker }) {
    for (const status of [{}, { health: null, listeners: null, tables: [{}], certificates: [{}], denials: [{}], bridges: [{}], store: {}, memory: null, clock: null, configuration: null, counters: null }]) {
      Object.assign(broker.state, { status, history: {}, clients: [], sessions: [], retained: [] });
      await tab.page.reload();
      await tab.has("#list", "No client is connected");
      await tab.has("#health", "Unknown");
    }
    broker.state.history = { stepSeconds: 0, endUnix: null, series: { publishesSent: [null, 3, null], bytesSent: null } };
    broker.state.clients = [{}];
    await tab.page.reload();
    await tab.has("#list tbody", "never");
    broker.state.status = "<html>";
    await tab.has("#health", /does not answer since .* \(answered what is no JSON\)/);
    broker.state.status = undefined;
    await tab.has("#health", /does not answer since .* \(there is no such client\)/);
    return NETWORK;
  },

  async "names that mean harm"({ tab, broker }) {
    const rows = clients(HOSTILE.length).map((client, index) => ({ ...client, clientId: HOSTILE[index], username: HOSTILE.at(-1 - index), attributes: Object.fromEntries([[HOSTILE[index], HOSTILE[0]]]), address: HOSTILE[index] }));
    Object.assign(broker.state, { status: hostile(), clients: rows, retained: HOSTILE.map((topic) => ({ topic, qos: 1, payloadBytes: 3, expiresInSeconds: null })) });
    broker.state.filters = HOSTILE.map((filter) => ({ filter, qos: 1, noLocal: false, retainAsPublished: true, retainHandling: 0, identifier: null }));
    await tab.page.reload();
    await tab.has("#list", "onerror");
    const list = await tab.text("#list");
    assert.ok(list.includes(HOSTILE[0]) && list.includes(HOSTILE[1]), "markup is text");
    assert.ok(list.includes("\\u{202e}gnp.exe") && list.includes("a\\u{0}b\\u{7}c\\u{1b}[31m") && list.includes("zero\\u{200b}width\\u{2066}\\u{feff}") && list.includes("\\u{d800} alone"), list);
    assert.ok(list.includes("… (65,535 characters)"));
    assert.ok(!/[\u0000-\u0008\u200b-\u200f\u202a-\u202e\u2066-\u2069]/.test(await tab.text("body")), "nothing hides or turns text around");
    assert.deepStrictEqual(await tab.page.evaluate(() => [window.owned, document.querySelectorAll("img, iframe, body script ~ script").length]), [undefined, 0]);
    await readable(tab, "hostile");
    for (const index of HOSTILE.keys()) {
      if (HOSTILE[index].length > 1000 || HOSTILE[index].startsWith("\ud800")) continue;
      await tab.page.locator("[data-client]").nth(index).click();
      await tab.has("#panel-body", "Subscriptions");
      assert.match(await tab.text("#panel-body"), /… \(65,535 characters\)/);
      await tab.page.keyboard.press("Escape");
    }
    await tab.page.locator("[data-view=retained]").click();
    await tab.has("#people-title", "Retained messages");
    assert.ok((await tab.text("#list")).includes(HOSTILE[0]));
  },

  async "five thousand clients, in pages"({ tab, broker }) {
    Object.assign(broker.state, { status: fine(), history: historyOf(360, false), clients: clients(5000), filters: [], most: 0 });
    await tab.page.reload();
    await tab.has("#list-note", "25 on page 1, more follow");
    await tab.page.locator("#next").click();
    await tab.has("#list-note", "25 on page 2, more follow");
    assert.match(await tab.text("#list tbody tr:first-child"), /sensor-0025/);
    await tab.page.locator("#previous").click();
    await tab.has("#list tbody tr:first-child", "sensor-0000");
    await tab.page.locator("#search").fill("Sensor-4999");
    await tab.has("#list tbody", "sensor-4999");
    assert.strictEqual(await tab.page.locator("#list tbody tr").count(), 1);
    await tab.page.locator("#search").fill("north");
    await tab.has("#list-note", "more follow");
    await tab.page.locator("#search").fill("nobody");
    await tab.has("#list", "None begins with this");
    await tab.page.locator("#search").fill("");
    await tab.has("#list tbody tr:first-child", "sensor-0000");
    assert.ok(broker.state.most <= 3, `${broker.state.most} questions at a time`);
  },

  async "what changes, changes without a reload, and the focus stays"({ tab, broker }) {
    await tab.page.evaluate(() => { window.sameDocument = true; });
    broker.state.clients = clients(5);
    await tab.has("#list-note", "5 on page 1");
    await tab.page.locator("[data-client=sensor-0003]").focus();
    broker.state.clients = [...clients(5).slice(2), { ...clients(1)[0], clientId: "newcomer" }];
    await tab.has("#list", "newcomer");
    assert.deepStrictEqual(await tab.page.evaluate(() => [document.activeElement.dataset.client, window.sameDocument]), ["sensor-0003", true]);
    assert.ok(!(await tab.text("#list")).includes("sensor-0001"));
  },

  async "everything by keyboard"({ tab, broker }) {
    broker.state.filters = Array.from({ length: 250 }, (_, index) => ({ filter: `site/${index}/#`, qos: 2, noLocal: true, retainAsPublished: false, retainHandling: 1, identifier: 7 }));
    broker.state.sessions = [{ clientId: "sleeper", connected: false, expiresInSeconds: 7200, queued: 41, inFlight: 0, subscriptions: 2, owner: "sleeper" }];
    const { page } = tab;
    await page.reload();
    await tab.has("#list", "sensor-0003");
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.dataset.view || document.activeElement.dataset.client || document.activeElement.getAttribute("aria-label") || document.activeElement.textContent);
    const visited = [];
    for (let steps = 0; steps < 60 && visited.at(-1) !== "sensor-0003"; steps++) {
      await page.keyboard.press("Tab");
      visited.push(await focused());
      const outlined = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none");
      assert.ok(outlined, `where the focus is can be seen: ${visited.at(-1)}`);
    }
    assert.deepStrictEqual(visited, ["To the content", "theme", "Messages per second", "Bytes per second", "Connections", "Lost or refused in 10 s", "clients", "sessions", "retained", "search", "sensor-0002", "sensor-0003"]);
    await page.keyboard.press("Enter");
    await tab.has("#panel-body", "site/199/#");
    assert.match(await tab.text("#panel-body"), /and 50 more/);
    assert.match(await tab.text("#panel-body table tbody tr:first-child"), /site\/0\/#\s*2\s*yes\s*no\s*1\s*7/);
    await readable(tab, "client");
    await page.keyboard.press("Escape");
    assert.strictEqual(await page.locator("#panel").isVisible(), false);
    assert.strictEqual(await focused(), "sensor-0003", "the focus is where it was");
    await page.locator("[data-view=sessions]").focus();
    await page.keyboard.press("Space");
    await tab.has("#list", "sleeper");
    assert.match(await tab.text("#list tbody"), /sleeper\s*in 2 h\s*sleeper\s*41\s*0\s*2/);
    assert.strictEqual(await page.locator("[data-view=sessions]").getAttribute("aria-pressed"), "true");
  },

  async "charts tell values, to the pointer and to the keyboard"({ tab, broker }) {
    const flat = (value) => Array.from({ length: 360 }, (_, index) => value + index);
    broker.state.history = { stepSeconds: 10, endUnix: 1_796_000_000, series: { publishesReceived: flat(1000), publishesSent: flat(2000), bytesReceived: flat(0), bytesSent: flat(10_000_000), connections: flat(1), dropped: flat(0), denied: flat(0) } };
    const { page } = tab;
    await page.reload();
    const chart = page.locator("[aria-label='Messages per second']");
    const told = () => chart.getAttribute("aria-valuetext");
    await tab.has("#charts", "received 136");
    assert.match(await told(), /received 136, sent 236/);
    await chart.focus();
    await page.keyboard.press("Home");
    assert.match(await told(), /received 100, sent 200/);
    await page.keyboard.press("PageUp");
    assert.match(await told(), /received 103, sent 203/);
    await page.keyboard.press("Escape");
    const box = await chart.boundingBox();
    await page.mouse.move(box.x + 52 + (box.width - 58) / 2, box.y + 40);
    assert.match(await told(), /received 118, sent 218/);
    assert.match(await page.locator("#charts > div").first().innerText(), /received 118\s*sent 218\s*\d\d:\d\d:\d\d/);
    assert.strictEqual(await chart.locator("path.at").count(), 1);
    await page.mouse.move(0, 0);
    assert.strictEqual(await chart.locator("path.at").count(), 0);
    assert.match(await page.locator("#charts > div").nth(1).innerText(), /sent 1 MB/);
  },

  async "colours by button, kept over a reload"({ tab }) {
    const { page } = tab;
    await page.emulateMedia({ colorScheme: "light" });
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.locator("#theme").click();
    await page.locator("#theme").click();
    assert.match(await tab.text("#theme"), /dark/);
    const dark = await ground();
    assert.notStrictEqual(dark, light);
    await page.reload();
    assert.strictEqual(await ground(), dark);
    await page.locator("#theme").click();
    assert.strictEqual(await ground(), light);
  },
};

async function main() {
  const broker = await serve(file);
  const browser = await start(screenshots);
  try {
    const tab = await browser.open(broker.url);
    for (const [name, step] of Object.entries(STEPS)) {
      const expected = await step({ tab, broker });
      if (/well|wrong|pages/.test(name)) await readable(tab, name.replaceAll(/[^a-z]+/g, "-"));
      tab.calm(expected);
      console.log(`ok ${name}`);
    }
    assert.deepStrictEqual(broker.state.asked.filter((path) => path !== "/" && !path.startsWith("/api/v1/")), []);
  } finally {
    await browser.close();
    broker.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
