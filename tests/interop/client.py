"""paho-mqtt against a running broker: QoS 0 to 2, retained messages, wills, resumed sessions, refused requests.

Usage: client.py TCP_PORT WEBSOCKET_PORT TLS_PORT WSS_PORT CA_FILE
Prints one line for each combination that works; ends with an exception at the first that does not.
"""

import queue
import ssl
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_SECONDS = 30
TCP, WEBSOCKET, TLS, WSS = (int(argument) for argument in sys.argv[1:5])
AUTHORITY = sys.argv[5]


class Client:
    """A client whose messages and acknowledgements can be waited for."""

    def __init__(self, name, version, transport, port, encrypted, clean=True, expiry=0, will=None):
        self.messages = queue.Queue()
        self.events = queue.Queue()
        options = {} if version == mqtt.MQTTv5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, transport=transport, **options
        )
        if encrypted:
            self.client.tls_set(ca_certs=AUTHORITY, cert_reqs=ssl.CERT_REQUIRED)
        if will:
            self.client.will_set(*will)
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_connect = lambda client, data, flags, reason, properties: self.events.put((flags, reason))
        self.client.on_subscribe = lambda client, data, mid, reasons, properties: self.events.put(reasons)
        arguments = {}
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            arguments = {"clean_start": clean, "properties": properties}
        self.client.connect("localhost", port, 30, **arguments)
        self.client.loop_start()
        self.flags, reason = self.events.get(timeout=PATIENCE_SECONDS)
        assert not reason.is_failure, reason

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        return [int(reason.value) for reason in self.events.get(timeout=PATIENCE_SECONDS)]

    def publish(self, topic, payload, qos, retain=False):
        self.client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_SECONDS)

    def message(self):
        message = self.messages.get(timeout=PATIENCE_SECONDS)
        return message.topic, message.payload, message.qos, bool(message.retain)

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


def exercise(version, transport, port, encrypted):
    label = f"{'5.0' if version == mqtt.MQTTv5 else '3.1.1'} {transport} {'TLS' if encrypted else 'plain'}"
    base = label.replace(" ", "-").replace(".", "")

    def start(name, **options):
        return Client(f"{base}-{name}", version, transport, port, encrypted, **options)

    subscriber, publisher = start("subscriber"), start("publisher")
    assert subscriber.subscribe(f"{base}/+/data", 2) == [2]
    for qos in (0, 1, 2):
        for size in (0, 10, 100_000):
            payload = bytes([qos + 1]) * size
            publisher.publish(f"{base}/{qos}/data", payload, qos)
            assert subscriber.message() == (f"{base}/{qos}/data", payload, qos, False)

    publisher.publish(f"{base}/kept", b"kept", 1, retain=True)
    assert subscriber.subscribe(f"{base}/#", 1) == [1]
    assert subscriber.message() == (f"{base}/kept", b"kept", 1, True)
    publisher.publish(f"{base}/kept", b"", 1, retain=True)
    assert subscriber.message() == (f"{base}/kept", b"", 1, False)

    sleeper = start("sleeper", clean=False, expiry=600)
    assert sleeper.subscribe(f"{base}/offline", 2) == [2]
    sleeper.stop()
    for number in range(20):
        publisher.publish(f"{base}/offline", str(number).encode(), 2)
    sleeper = start("sleeper", clean=False, expiry=600)
    assert sleeper.flags.session_present
    assert [sleeper.message()[1] for _ in range(20)] == [str(number).encode() for number in range(20)]
    sleeper.stop()
    start("sleeper", clean=True).stop()

    dying = start("dying", will=(f"{base}/will", b"gone", 1, False))
    dying.client.socket().close()
    while True:
        topic, payload, _, _ = subscriber.message()
        if topic == f"{base}/will":
            assert payload == b"gone"
            break
    dying.client.loop_stop()
    subscriber.stop()
    publisher.stop()
    print("ok", label, flush=True)


for version in (mqtt.MQTTv5, mqtt.MQTTv311):
    for transport, port, encrypted in (
        ("tcp", TCP, False),
        ("websockets", WEBSOCKET, False),
        ("tcp", TLS, True),
        ("websockets", WSS, True),
    ):
        exercise(version, transport, port, encrypted)
