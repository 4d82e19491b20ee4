// What the page is shown without a broker: a small HTTP server with made-up answers of the JSON interface.
//
// `serve(page)` serves the file with the policy that the broker sends. `state` is what the answers are made of; a test changes
// it while the page runs. `state.gone` closes every connection unanswered, as a broker does that is not there.

const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");

const seconds = () => Math.floor(Date.now() / 1000);

/** The policy of the page: nothing but its own script, its own style, and questions to its own broker. */
function policy(page) {
  const digest = (element) => {
    const text = page.match(new RegExp(`<${element}>([^]*?)</${element}>`))[1];
    return `'sha256-${crypto.createHash("sha256").update(text).digest("base64")}'`;
  };
  return `default-src 'none'; script-src ${digest("script")}; style-src ${digest("style")}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
}

/** A broker with nothing wrong. */
function fine() {
  const now = seconds();
  return {
    version: "0.6.0",
    board: "raspberry-pi-4",
    machine: null,
    startedUnix: now - 3 * 86400 - 5 * 3600,
    uptimeSeconds: 3 * 86400 + 5 * 3600,
    nowUnix: now,
    clock: { trusted: true, policy: "Enforce" },
    configuration: { digest: "sha256:5d1e0cdb7b2f6a90", file: "/etc/portcullis/site.blob", appliedUnix: now - 7200 },
    memory: { budgetBytes: 128 << 20, residentBytes: 21 << 20 },
    health: {
      state: "Available",
      ready: true,
      checks: [
        { name: "listeners", ok: true, detail: "3 of 3 ports accept" },
        { name: "store", ok: true, detail: null },
        { name: "probe", ok: true, detail: null },
      ],
      probe: {
        state: "Available",
        reason: null,
        lastUnix: now - 12,
        latencyMilliseconds: { connect: 1.4, subscribe: 0.6, publish: 2.9, ping: 0.3, unsubscribe: 0.5 },
      },
    },
    listeners: [
      { name: "mqtts-endpoint", port: 8883, addresses: ["0.0.0.0", "::"], protocol: "Mqtt", tls: "Manual", certificateNotAfterUnix: now + 190 * 86400, authentication: "x509-authn", authorization: "abac-authz", connections: 41 },
      { name: "browsers", port: 8443, addresses: ["0.0.0.0"], protocol: "WebSockets", tls: "Automatic", certificateNotAfterUnix: now + 61 * 86400, authentication: "logins", authorization: "abac-authz", connections: 3 },
      { name: "local", port: 1883, addresses: ["127.0.0.1", "::1"], protocol: "Mqtt", tls: "None", certificateNotAfterUnix: null, authentication: null, authorization: null, connections: 2 },
    ],
    certificates: [
      { name: "mqtts-endpoint", kind: "server", subject: "CN = mqtts-endpoint", notAfterUnix: now + 190 * 86400 },
      { name: "browsers", kind: "server", subject: "CN = gateway.local", notAfterUnix: now + 61 * 86400 },
      { name: "fabrikam-ca", kind: "trust", subject: "CN = Fabrikam Root CA", notAfterUnix: now + 3200 * 86400 },
    ],
    tables: [
      ["connections", 46, 256], ["sessions", 52, 512], ["subscriptions", 180, 4096], ["messages", 310, 8192], ["deliveries", 322, 16384], ["retained", 120, 1024], ["replies", 0, 2048],
    ].map(([name, used, capacity]) => ({ name, used, capacity, refused: 0 })),
    counters: { publishesReceived: 1_204_331, publishesSent: 2_390_870, connects: 812, droppedQueueFull: 0 },
    store: { state: "sound", usedBytes: 31 << 20, maxBytes: 256 << 20, position: 918_221, commits: 201_443, bytes: 911 << 20, bytesPerAcknowledgedByte: 2.7, lastSyncMilliseconds: 3.1, maxSyncMilliseconds: 148, failures: 0, damaged: 0 },
    denials: [
      { unix: now - 7000, clientId: "thermostat", username: "thermostat", action: "publish", resource: "telemetry/humidity", listener: "mqtts-endpoint", rule: "abac-authz.authorization.json:21", explain: "attribute 'group' is 'thermostat_group', and the rule wants 'hygrometer_group'" },
    ],
    bridges: [
      { name: "to-cluster", remote: "mqtts://aio-broker.plant.example:8883", state: "Connected", sinceUnix: now - 86400, queued: 0, dropped: 0, sent: 120_331, received: 211, lastError: null },
    ],
  };
}

/** The same broker at its worst hour. */
function degraded() {
  const status = fine();
  const now = status.nowUnix;
  status.health = {
    state: "Degraded",
    ready: true,
    checks: [
      { name: "listeners", ok: true, detail: "2 of 3 ports accept" },
      { name: "store", ok: false, detail: "the disk refuses writes since 02:51:07 (read-only file system)" },
      { name: "probe", ok: false, detail: "PUBLISH was answered with 0x83" },
      { name: "machine", ok: false, detail: "network: no cable at eth0" },
    ],
    probe: { state: "Degraded", reason: "BrokerProbeFailed: Probe failed: Failed Operation PUBLISH (3/8)", lastUnix: now - 20, latencyMilliseconds: { connect: 1.4, subscribe: 2000, publish: null } },
  };
  status.clock = { trusted: false, policy: "Enforce" };
  status.machine = {
    board: "rpi3", release: "0.6.0", version: 7, slot: "a", trial: false, configuration: "b", configurationVersion: 3, data: "read-only", network: "no cable at eth0", clock: "no time server has answered yet",
    update: { state: "back", text: "not ready within 300 s", version: 8 }, notices: ["network: no cable at eth0", "update: version 8 went back"],
  };
  status.store = { ...status.store, state: "failed", failures: 12, damaged: 1, usedBytes: 250 << 20 };
  status.listeners[0].certificateNotAfterUnix = now + 5 * 86400;
  status.listeners[1].tls = "AwaitsCertificate";
  status.listeners[1].certificateNotAfterUnix = null;
  status.certificates[0].notAfterUnix = now + 5 * 86400;
  status.certificates[1].notAfterUnix = now - 2 * 86400;
  status.tables[2] = { name: "subscriptions", used: 4096, capacity: 4096, refused: 311 };
  status.tables[3] = { name: "messages", used: 6500, capacity: 8192, refused: 0 };
  status.bridges[0] = { ...status.bridges[0], state: "Disconnected", sinceUnix: now - 1900, queued: 18_222, dropped: 40, lastError: "connection refused" };
  status.denials = Array.from({ length: 64 }, (_, index) => ({
    unix: now - 9 * index - 3, clientId: `heater-${index % 7}`, username: `heater-${index % 7}`, action: ["publish", "subscribe", "connect"][index % 3], resource: index % 3 === 2 ? null : `health/heartbeat/${index}`,
    listener: "mqtts-endpoint", rule: index % 2 ? "abac-authz.authorization.json:21" : null, explain: index % 2 ? "the rule allows Publish of this, and not Subscribe" : "no rule comes near",
  }));
  return status;
}

/** Names that a peer may choose to do harm, all allowed in MQTT but the first. */
const HOSTILE = [
  "<img src=x onerror=\"document.title='owned'\">",
  "</script><script>window.owned = 1</script>",
  "\u202egnp.exe",
  "a\u0000b\u0007c\u001b[31m",
  "&lt;b&gt; ' \" ` ${1} {{2}}",
  "zero\u200bwidth\u2066\ufeff",
  "x".repeat(65_535),
  "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
  "__proto__",
  "constructor",
  "javascript:alert(1)",
  "\ud800 alone",
];

/** Everything that can be a name is one of those. */
function hostile() {
  const status = degraded();
  const at = (index) => HOSTILE[index % HOSTILE.length];
  const disguise = (value, index) =>
    Array.isArray(value) ? value.map((item, place) => disguise(item, index + place))
    : value !== null && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([name, item], place) => [name, disguise(item, index + place)]))
    : typeof value === "string" ? at(index)
    : value;
  const known = { tls: "AwaitsCertificate", state: "Degraded" };
  const made = disguise(status, 0);
  for (const [index, denial] of made.denials.entries()) Object.assign(denial, { clientId: at(index), username: at(index + 1), resource: at(index + 2) });
  made.listeners[0].tls = known.tls;
  made.counters = Object.fromEntries(HOSTILE.map((name, index) => [name, index]));
  return made;
}

/** `count` connected clients, in the order of their slots. */
function clients(count) {
  const now = seconds();
  return Array.from({ length: count }, (_, index) => ({
    clientId: `sensor-${String(index).padStart(4, "0")}`, username: `sensor-${index}`, method: index % 3 ? "X509" : "UsernamePassword", attributes: index % 3 ? { group: "thermostat_group", site: "north" } : {}, listener: "mqtts-endpoint",
    address: `192.168.7.${index % 250}:${40_000 + (index % 9000)}`, protocol: index % 5 ? "MQTT 5" : "MQTT 3.1.1", keepAliveSeconds: 60, connectedUnix: now - 60 * index - 5, expiresUnix: index % 2 ? now + 86400 * 30 : null, queued: index % 11, inFlight: index % 3,
    subscriptions: index % 4, category: "uncategorized",
  }));
}

function historyOf(full, wrong) {
  const wave = (base, swing, phase) => Array.from({ length: full }, (_, index) => Math.max(0, Math.round(base + swing * Math.sin(index / 37 + phase) + ((index * 7919) % 97) * swing / 400)));
  return {
    stepSeconds: 10,
    endUnix: seconds(),
    series: {
      publishesReceived: wave(1200, 400, 0), publishesSent: wave(2300, 900, 1), bytesReceived: wave(190_000, 60_000, 0), bytesSent: wave(380_000, 150_000, 1), connections: wave(44, 3, 2),
      dropped: Array.from({ length: full }, (_, index) => (wrong && index > full - 40 ? (index * 31) % 17 : 0)), denied: Array.from({ length: full }, (_, index) => (wrong && index % 13 === 0 ? 2 : 0)),
    },
  };
}

const PAGES = 200;

/** A part of `rows` as the broker pages: a bounded number of rows, and a cursor that stands for a slot. */
function paged(name, rows, query) {
  const from = Number(query.get("after") ?? 0);
  const to = Math.min(rows.length, from + Math.min(PAGES, Number(query.get("limit") ?? PAGES)));
  return { [name]: rows.slice(from, to), next: to < rows.length ? to : null };
}

function answer(state, path, query) {
  if (path === "/api/v1/status") return state.status;
  if (path === "/api/v1/history") return state.history;
  if (path === "/api/v1/clients") return paged("clients", state.clients, query);
  if (path === "/api/v1/sessions") return paged("sessions", state.sessions, query);
  if (path === "/api/v1/retained") return paged("retained", state.retained, query);
  if (path === "/api/v1/explain") return { decision: "denied", action: query.get("action"), resource: query.get("topic"), port: 8883, listener: "mqtts-endpoint", authorization: "abac-authz",
    identity: { method: "X509", assumed: false, username: query.get("username"), clientId: query.get("clientId"), attributes: { group: "thermostat_group" } }, rule: null, reason: `no rule allows it to ${query.get("action")} to '${query.get("topic")}'`,
    nearest: [{ rule: "abac-authz.authorization.json:21", missing: "attribute 'group' is 'thermostat_group', and the rule wants 'hygrometer_group'" }] };
  if (path === "/api/v1/client") {
    const found = state.clients.find((client) => client.clientId === query.get("clientId"));
    return found && { ...found, filters: (state.filters ?? []).slice(0, 200), filtersMore: Math.max(0, (state.filters ?? []).length - 200) };
  }
  return undefined;
}

/** Serves the page and the answers on a free port of loopback. */
async function serve(file) {
  const page = fs.readFileSync(file, "utf8");
  const state = { status: fine(), history: historyOf(360, false), clients: clients(46), sessions: [], retained: [], filters: [], gone: false, asked: [], most: 0 };
  let under = 0;
  const server = http.createServer((request, response) => {
    if (state.gone) return request.socket.destroy();
    const url = new URL(request.url, "http://broker");
    state.asked.push(url.pathname);
    state.most = Math.max(state.most, ++under);
    response.on("close", () => { under -= 1; });
    response.setHeader("Connection", "close");
    response.setHeader("X-Content-Type-Options", "nosniff");
    if (url.pathname === "/") {
      response.setHeader("Content-Security-Policy", policy(page));
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      return response.end(page);
    }
    const value = answer(state, url.pathname, url.searchParams);
    response.setHeader("Content-Type", "application/json");
    response.statusCode = value === undefined ? 404 : 200;
    return response.end(typeof value === "string" ? value : JSON.stringify(value ?? { error: "there is no such client" }));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { state, url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

module.exports = { HOSTILE, clients, degraded, fine, historyOf, hostile, seconds, serve };
