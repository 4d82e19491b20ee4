// The status page of a running broker: what it shows is what MQTT.js has done.
//
// Usage: node live.cjs MQTT_PORT DIAGNOSTICS_PORT [SCREENSHOTS] (with NODE_PATH to playwright-core and mqtt)
// The broker has the users and rules that `tests/status_page.rs` gives it. Prints one line for each thing that holds; ends with
// code 1 at the first that does not. At `stop the broker` and `start the broker` it waits for somebody who does.

const assert = require("node:assert");
const mqtt = require("mqtt");
const { readable, start } = require("./browser.cjs");

const [port, diagnostics, screenshots] = process.argv.slice(2);
const NETWORK = /Failed to load resource/;
/** Allowed in a client identifier, and meant for whoever shows it as markup. */
const MARKUP = "<img src=x onerror=alert(1)> \u202e\u00e9\u4e2d";

const connect = (clientId, options) => mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId, username: "thermostat", password: "pw", protocolVersion: 5, reconnectPeriod: 0, ...options }, false);
const row = (tab, text) => tab.page.locator("#list tbody tr").filter({ hasText: text }).first();

const STEPS = {
  async "a client appears, as it is, and goes"({ tab }) {
    await tab.has("#health", /Ready for clients/);
    await tab.page.evaluate(() => { window.sameDocument = true; });
    const client = await connect(MARKUP, { keepalive: 77 });
    await client.subscribeAsync("commands/thermostat/#", { qos: 1 });
    await assert.rejects(client.subscribeAsync("forbidden/+"), /Not authorized/);
    await row(tab, "<img src=x onerror=alert(1)> \\u{202e}\u00e9\u4e2d").waitFor();
    await tab.has("#list tbody tr td:last-child", /^1$/);
    const shown = await row(tab, "onerror").innerText();
    assert.match(shown, /thermostat\s+UsernamePassword group=heaters/);
    assert.ok(shown.includes(`127.0.0.1:${client.stream.localPort} on all`), shown);
    assert.match(await tab.text("#tiles"), /Connections\s*[1-9]/);
    await row(tab, "onerror").locator("button").click();
    await tab.has("#panel-body", "commands/thermostat/#");
    assert.match(await tab.text("#panel-body"), /MQTT 5, keep alive 77 s/);
    assert.ok(!(await tab.text("#panel-body")).includes("forbidden"));
    await tab.page.keyboard.press("Escape");
    await client.endAsync();
    await row(tab, "onerror").waitFor({ state: "detached" });
    assert.strictEqual(await tab.page.evaluate(() => window.sameDocument), true, "without a reload");
  },

  async "a denial appears, with its rule and why"({ tab }) {
    const client = await connect("reader", { protocolVersion: 4 });
    await client.subscribeAsync("commands/thermostat/now");
    const publisher = await connect("writer");
    await assert.rejects(publisher.publishAsync("telemetry/secret", "x", { qos: 1 }), /Not authorized/i);
    await tab.has("#denials tbody tr:first-child", "telemetry/secret");
    const denial = await tab.text("#denials tbody tr:first-child");
    assert.match(denial, /writer\s+thermostat\s+publish telemetry\/secret\s+all\s+\S*rules\.authorization\.yaml:\d+/);
    await tab.page.locator("#denials a").first().click();
    await tab.has("#panel-body", "no rule allows it to publish to 'telemetry/secret'");
    assert.match(await tab.text("#panel-body"), /denied[^]*Nearest rules[^]*rules\.authorization\.yaml:\d+[^]*client id\s+writer/);
    await tab.picture("live-explain");
    await tab.page.keyboard.press("Escape");
    await assert.rejects(connect("stranger", { password: "wrong" }));
    await tab.has("#denials tbody tr:first-child", /stranger[^]*connect/);
    await row(tab, "reader").locator("button").click();
    await tab.has("#panel-body", "MQTT 3.1.1");
    await tab.page.keyboard.press("Escape");
    await Promise.all([client.endAsync(), publisher.endAsync()]);
  },

  async "what waits is listed: sessions and retained messages"({ tab }) {
    const sleeper = await connect("sleeper", { clean: false, properties: { sessionExpiryInterval: 7200 } });
    await sleeper.subscribeAsync("commands/thermostat/#", { qos: 1 });
    await sleeper.endAsync();
    const writer = await connect("writer");
    for (let number = 0; number < 3; number++) await writer.publishAsync("commands/thermostat/set", "21", { qos: 1 });
    await writer.publishAsync("commands/thermostat/kept", "x".repeat(2048), { qos: 1, retain: true });
    await writer.endAsync();
    await tab.page.locator("[data-view=sessions]").click();
    await tab.has("#list tbody tr", /sleeper\s*in 1 h 59 min[^]*4\s*0\s*1/);
    await tab.page.locator("[data-view=retained]").click();
    await tab.page.locator("#search").fill("commands/thermostat/kept");
    await tab.has("#list tbody tr", /commands\/thermostat\/kept\s*1\s*2 KiB\s*never/);
    await tab.page.locator("#search").fill("");
    await tab.page.locator("[data-view=clients]").click();
    assert.match(await tab.text("#store"), /sound/);
    await readable(tab, "live");
  },

  async "more clients than a page has"({ tab }) {
    // One after the other: the broker hashes few passwords at a time, and refuses who would wait too long.
    const clients = [];
    while (clients.length < 30) clients.push(await connect(`many-${clients.length}`));
    await tab.has("#list-note", "25 on page 1, more follow");
    await tab.page.locator("#search").fill("many-29");
    await tab.has("#list tbody", "many-29");
    assert.strictEqual(await tab.page.locator("#list tbody tr").count(), 1);
    await tab.page.locator("#search").fill("");
    await Promise.all(clients.map((client) => client.endAsync()));
    await row(tab, "many-0").waitFor({ state: "detached" });
  },

  async "messages of the last hour are drawn"({ tab }) {
    // A step of the history has to end, which takes ten seconds, and the page asks as often.
    await tab.page.waitForFunction(() => document.querySelector("[aria-label='Connections'] path.one").getAttribute("d") !== "");
    await tab.has("#charts", /received [0-9]/);
  },

  async "a broker that goes is missed, and found again"({ tab }) {
    console.log("stop the broker");
    await tab.has("#health", "The broker does not answer since");
    console.log("start the broker");
    await tab.has("#health", /Ready for clients, up for \d+ s/);
    await tab.page.locator("[data-view=sessions]").click();
    await tab.has("#list tbody tr", "sleeper");
    return NETWORK;
  },
};

async function main() {
  const browser = await start(screenshots);
  try {
    const tab = await browser.open(`http://127.0.0.1:${diagnostics}/`);
    for (const [name, step] of Object.entries(STEPS)) {
      tab.calm(await step({ tab }));
      console.log(`ok ${name}`);
    }
  } finally {
    await browser.close();
  }
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
