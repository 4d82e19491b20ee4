// MQTT.js against a running broker: QoS 0 to 2, retained messages, wills, resumed sessions, aliases and properties.
//
// Usage: node client.cjs TCP_PORT WEBSOCKET_PORT TLS_PORT WSS_PORT CA_FILE (with NODE_PATH to the module)
// Prints one line for each combination that works; ends with code 1 at the first that does not.

const assert = require("node:assert");
const fs = require("node:fs");
const mqtt = require("mqtt");

const [tcp, websocket, tls, wss] = process.argv.slice(2, 6);
const ca = fs.readFileSync(process.argv[6]);
const patienceMilliseconds = 30_000;

function patient(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), patienceMilliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function start(url, protocolVersion, clientId, options = {}) {
  const client = mqtt.connect(url, { protocolVersion, clientId, ca, reconnectPeriod: 0, ...options });
  const messages = [];
  let wake = () => {};
  client.on("message", (topic, payload, packet) => {
    messages.push({ topic, payload: payload.toString("latin1"), qos: packet.qos, retain: packet.retain, packet });
    wake();
  });
  const connack = await patient(
    new Promise((resolve, reject) => {
      client.once("connect", resolve);
      client.once("error", reject);
    }),
    "CONNACK",
  );
  const message = () =>
    patient(
      new Promise((resolve) => {
        wake = () => {
          if (messages.length === 0) return;
          wake = () => {};
          resolve(messages.shift());
        };
        wake();
      }),
      "a message",
    );
  return { client, connack, message };
}

async function exercise(url, protocolVersion) {
  const label = `${protocolVersion === 5 ? "5.0" : "3.1.1"} ${url.split(":")[0]}`;
  const base = label.replace(/[^0-9a-z]/g, "");
  const open = (name, options) => start(url, protocolVersion, `${base}-${name}`, options);
  const subscriber = await open("subscriber");
  const publisher = await open("publisher");
  const granted = await subscriber.client.subscribeAsync(`${base}/+/data`, { qos: 2 });
  assert.strictEqual(granted[0].qos, 2);
  for (const qos of [0, 1, 2]) {
    for (const size of [0, 10, 100_000]) {
      const payload = String.fromCharCode(65 + qos).repeat(size);
      await patient(publisher.client.publishAsync(`${base}/${qos}/data`, payload, { qos }), "an acknowledgement");
      const message = await subscriber.message();
      assert.deepStrictEqual([message.payload, message.qos, message.retain], [payload, qos, false]);
    }
  }

  if (protocolVersion === 5) {
    const properties = {
      payloadFormatIndicator: true,
      messageExpiryInterval: 60,
      responseTopic: `${base}/answers`,
      correlationData: Buffer.from([1, 2, 3]),
      userProperties: { first: ["1", "2"] },
      contentType: "text/plain",
    };
    await subscriber.client.subscribeAsync(`${base}/properties`, { qos: 1, properties: { subscriptionIdentifier: 77 } });
    for (let count = 0; count < 3; count += 1) {
      await publisher.client.publishAsync(`${base}/properties`, "x", { qos: 1, properties: { ...properties, topicAlias: 3 } });
      const received = (await subscriber.message()).packet.properties;
      assert.strictEqual(received.responseTopic, properties.responseTopic);
      assert.deepStrictEqual([...received.correlationData], [1, 2, 3]);
      assert.deepStrictEqual(received.userProperties.first, ["1", "2"]);
      assert.strictEqual(received.contentType, "text/plain");
      assert.strictEqual(received.subscriptionIdentifier, 77);
    }
  }

  await publisher.client.publishAsync(`${base}/kept`, "kept", { qos: 1, retain: true });
  await subscriber.client.subscribeAsync(`${base}/kept`, { qos: 1 });
  const kept = await subscriber.message();
  assert.deepStrictEqual([kept.payload, kept.retain], ["kept", true]);
  await publisher.client.publishAsync(`${base}/kept`, "", { qos: 1, retain: true });
  await subscriber.message();

  const lasting = protocolVersion === 5 ? { clean: false, properties: { sessionExpiryInterval: 600 } } : { clean: false };
  let sleeper = await open("sleeper", lasting);
  await sleeper.client.subscribeAsync(`${base}/offline`, { qos: 2 });
  await sleeper.client.endAsync();
  for (let number = 0; number < 20; number += 1) {
    await publisher.client.publishAsync(`${base}/offline`, String(number), { qos: 2 });
  }
  sleeper = await open("sleeper", lasting);
  assert.strictEqual(sleeper.connack.sessionPresent, true);
  for (let number = 0; number < 20; number += 1) {
    assert.strictEqual((await sleeper.message()).payload, String(number));
  }
  await sleeper.client.endAsync();
  await (await open("sleeper", { clean: true })).client.endAsync();

  const dying = await open("dying", { will: { topic: `${base}/will`, payload: Buffer.from("gone"), qos: 1, retain: false } });
  await subscriber.client.subscribeAsync(`${base}/will`, { qos: 1 });
  dying.client.stream.destroy();
  assert.strictEqual((await subscriber.message()).payload, "gone");
  await subscriber.client.endAsync();
  await publisher.client.endAsync();
  console.log("ok", label);
}

(async () => {
  for (const version of [5, 4]) {
    for (const url of [
      `mqtt://localhost:${tcp}`,
      `ws://localhost:${websocket}/mqtt`,
      `mqtts://localhost:${tls}`,
      `wss://localhost:${wss}/mqtt`,
    ]) {
      await exercise(url, version);
    }
  }
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
