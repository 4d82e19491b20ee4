//! Every mistake of a configuration, one test each: where it is reported, and with which words.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod config_pki;

use portcullis::config::{LoadOptions, load_embedded};

/// Errors and notes of these files.
fn findings(files: &[(&str, &str)]) -> String {
    match load_embedded(files, &LoadOptions::default()) {
        Ok(loaded) => loaded.notes.to_string(),
        Err(found) => found.to_string(),
    }
}

/// Asserts that these files are refused, and that each line of `expected` is one of the messages.
#[track_caller]
fn refused(files: &[(&str, &str)], expected: &[&str]) {
    let found = load_embedded(files, &LoadOptions::default()).expect_err("it is refused").to_string();
    for line in expected {
        assert!(found.lines().any(|candidate| candidate.contains(line)), "expected {line}\nfound\n{found}");
    }
}

/// Asserts that these files are accepted with a note.
#[track_caller]
fn noted(files: &[(&str, &str)], expected: &str) {
    match load_embedded(files, &LoadOptions::default()) {
        Ok(loaded) => {
            assert!(loaded.notes.to_string().contains(expected), "expected {expected}\nfound\n{}", loaded.notes)
        }
        Err(errors) => panic!("refused:\n{errors}"),
    }
}

const PLAIN: (&str, &str) = ("any.listener.yaml", "ports: [{port: 1883}]");

fn broker(spec: &str) -> String {
    format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default}}\nspec: {spec}\n"
    )
}

#[track_caller]
fn broker_refused(spec: &str, expected: &[&str]) {
    refused(&[PLAIN, ("b.yaml", &broker(spec))], expected);
}

#[track_caller]
fn listener_refused(body: &str, expected: &[&str]) {
    refused(&[("any.listener.yaml", body)], expected);
}

#[track_caller]
fn authentication_refused(body: &str, expected: &[&str]) {
    refused(&[PLAIN, ("certs.authentication.yaml", body)], expected);
}

#[track_caller]
fn rules_refused(rules: &str, expected: &[&str]) {
    refused(&[PLAIN, ("any.authorization.yaml", rules)], expected);
}

// --- all mistakes at once, and the shape of a message

#[test]
fn all_mistakes_are_reported_at_once_in_order_of_file_and_line() {
    let files = [
        ("b.listener.yaml", "ports:\n  - prt: 1883\n    protocol: mqt\nserviceTyp: NodePort\n"),
        ("any.authorization.yaml", "- principals: {}\n  brokerResources: []\n"),
    ];
    let found = load_embedded(&files, &LoadOptions::default()).unwrap_err().to_string();
    let errors: Vec<_> = found.lines().filter(|line| line.contains(": error: ")).collect();
    assert_eq!(
        errors,
        [
            "any.authorization.yaml:1:15: error: principals is empty: name at least one username, client identifier or attribute",
            "b.listener.yaml:1:1: error: \"b\" is no name of a BrokerListener: a name is 3 to 63 small letters, digits and hyphens that begin and end with a letter or digit",
            "b.listener.yaml:2:5: error: the field \"port\" of ports[] is missing",
            "b.listener.yaml:2:5: error: unknown field \"prt\" of ports[]; did you mean \"port\"?",
            "b.listener.yaml:3:15: error: protocol must be one of Mqtt, WebSockets, and this is \"mqt\"; did you mean \"Mqtt\"?",
            "b.listener.yaml:4:1: error: unknown field \"serviceTyp\" of the spec of BrokerListener; did you mean \"serviceType\"?",
        ]
    );
}

#[test]
fn control_characters_of_a_value_never_reach_the_terminal() {
    let found = findings(&[(
        "abc.listener.json",
        "{\"ports\": [{\"port\": 1, \"\\u001b[2J\": 1, \"protocol\": \"\\u001b[31m\\r\"}]}",
    )]);
    assert!(!found.contains('\u{1b}') && !found.contains('\r'), "{found:?}");
    assert!(found.contains("\\u{1b}[2J"), "{found}");
}

// --- manifests

#[test]
fn a_misspelt_kind_names_the_nearest() {
    refused(
        &[PLAIN, ("a.yaml", "apiVersion: v1\nkind: BrokerListner\n")],
        &["a.yaml:2:7: error: unknown kind \"BrokerListner\"; did you mean \"BrokerListener\"?"],
    );
}

#[test]
fn a_wrong_api_version_is_refused() {
    refused(
        &[PLAIN, ("a.yaml", "apiVersion: v2\nkind: ConfigMap\nmetadata: {name: a}\n")],
        &["a.yaml:1:13: error: the apiVersion of ConfigMap is \"v1\", and this is \"v2\""],
    );
}

#[test]
fn a_body_without_kind_needs_a_file_name_that_gives_it() {
    refused(&[PLAIN, ("a.yaml", "ports: []\n")], &["a.yaml:1:1: error: neither apiVersion nor kind"]);
}

#[test]
fn a_manifest_needs_a_name_and_a_spec() {
    let head = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\n";
    refused(
        &[PLAIN, ("a.yaml", &format!("{head}metadata: {{}}\n"))],
        &["the field \"name\" of metadata is missing", "the field \"spec\" of the manifest is missing"],
    );
}

#[test]
fn names_follow_the_pattern_of_the_vendor() {
    for name in ["ab", "Abc", "-abc", "abc-", "a_b_c", "a.b.c"] {
        refused(&[(&format!("{name}.listener.yaml"), "ports: [{port: 1883}]")], &["is no name of a BrokerListener"]);
    }
}

#[test]
fn two_resources_of_one_kind_and_name_are_refused() {
    refused(
        &[("a/abc.listener.yaml", "ports: [{port: 1}]"), ("b/abc.listener.yaml", "ports: [{port: 2}]")],
        &[
            "b/abc.listener.yaml:1:1: error: a second BrokerListener named \"abc\"; the first is at a/abc.listener.yaml:1:1",
        ],
    );
}

#[test]
fn repeated_keys_are_refused_in_yaml_and_json() {
    refused(
        &[("abc.listener.yaml", "ports: [{port: 1}]\nports: [{port: 2}]\n")],
        &["abc.listener.yaml:2:1: error: the key \"ports\" stands here twice"],
    );
    refused(
        &[("abc.listener.json", "{\"ports\": [{\"port\": 1, \"port\": 2}]}")],
        &["abc.listener.json:1:24: error: the key \"port\" stands here twice"],
    );
}

#[test]
fn a_list_of_manifests_is_read_and_a_list_in_a_list_is_not() {
    let listener = "{apiVersion: mqttbroker.iotoperations.azure.com/v1, kind: BrokerListener, metadata: {name: abc}, spec: {ports: [{port: 1}]}}";
    let list = format!("{{apiVersion: v1, kind: List, metadata: {{}}, items: [{listener}]}}");
    assert_eq!(findings(&[("a.yaml", &list)]), "");
    refused(&[("a.yaml", &format!("{{apiVersion: v1, kind: List, items: [{list}]}}"))], &["a List inside a List"]);
}

#[test]
fn metadata_and_status_of_a_cluster_are_ignored() {
    let manifest = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata:\n  name: abc\n  namespace: azure-iot-operations\n  labels: {a: b}\n  annotations: {c: d}\nspec: {ports: [{port: 1}]}\nstatus: {anything: [1, 2]}\n";
    assert_eq!(findings(&[("a.yaml", manifest)]), "");
}

#[test]
fn no_listener_at_all_is_refused() {
    refused(&[], &["there is no BrokerListener"]);
}

// --- Broker

#[test]
fn the_broker_must_be_named_default_and_there_is_one() {
    let other = broker("{}").replace("default", "other");
    refused(
        &[PLAIN, ("a.yaml", &other)],
        &["a.yaml:3:18: error: the Broker must be named \"default\", and this is \"other\""],
    );
    refused(&[PLAIN, ("a.yaml", &broker("{}")), ("b.yaml", &other)], &["b.yaml:3:18: error: more than one Broker"]);
}

#[test]
fn numbers_of_the_broker_keep_their_ranges() {
    for (field, value) in [
        ("maxSessionExpirySeconds", "0"),
        ("maxSessionExpirySeconds", "4294967296"),
        ("maxMessageExpirySeconds", "0"),
        ("maxPacketSizeBytes", "0"),
        ("maxPacketSizeBytes", "268435457"),
        ("maxReceiveMaximum", "0"),
        ("maxReceiveMaximum", "65536"),
        ("maxKeepAliveSeconds", "65536"),
        ("maxKeepAliveSeconds", "-1"),
    ] {
        broker_refused(
            &format!("{{advanced: {{clients: {{{field}: {value}}}}}}}"),
            &[&format!("{field} is {value}, outside")],
        );
    }
    broker_refused(
        "{advanced: {clients: {subscriberQueueLimit: {length: 0}}}}",
        &["subscriberQueueLimit.length is 0, outside 1 to"],
    );
    broker_refused(
        "{cardinality: {backendChain: {partitions: 17, redundancyFactor: 6}, frontend: {replicas: 0}}}",
        &["partitions is 17", "redundancyFactor is 6", "replicas is 0"],
    );
    broker_refused(
        "{diagnostics: {selfCheck: {intervalSeconds: 29, timeoutSeconds: 4}, traces: {cacheSizeMegabytes: 0, spanChannelCapacity: 999}}}",
        &["intervalSeconds is 29", "timeoutSeconds is 4", "cacheSizeMegabytes is 0", "spanChannelCapacity is 999"],
    );
}

#[test]
fn the_port_of_the_diagnostics_is_one_of_its_own() {
    let port = |port: u32| format!("{{diagnostics: {{metrics: {{prometheusPort: {port}}}}}}}");
    broker_refused(&port(65_536), &["prometheusPort is 65536, outside 0 to 65535"]);
    broker_refused(
        &port(1_883),
        &["b.yaml:4:48: error: the prometheusPort 1883 is the port of a listener; 0 switches it off"],
    );
    let loaded = |listener: u16, spec: &str| {
        let listener = format!("ports: [{{port: {listener}}}]");
        let files = [("any.listener.yaml", listener.as_str()), ("b.yaml", &broker(spec))];
        let diagnostics = load_embedded(&files, &LoadOptions::default()).unwrap().configuration.diagnostics;
        (diagnostics.port, diagnostics.is_asked_for)
    };
    assert_eq!(loaded(1_883, "{}"), (Some(9_600), false));
    assert_eq!(loaded(9_600, "{}"), (None, false), "a listener is asked for, the default is not");
    assert_eq!(loaded(1_883, &port(0)), (None, false));
    assert_eq!(loaded(1_883, &port(9_600)), (Some(9_600), true));
}

#[test]
fn enumerations_of_the_broker_name_the_nearest_value() {
    broker_refused(
        "{memoryProfile: Tinny}",
        &["memoryProfile must be one of Tiny, Low, Medium, High, and this is \"Tinny\"; did you mean \"Tiny\"?"],
    );
    broker_refused(
        "{advanced: {clients: {subscriberQueueLimit: {strategy: dropoldest}}}}",
        &["did you mean \"DropOldest\"?"],
    );
}

#[test]
fn what_concerns_a_cluster_only_is_noted() {
    let spec = "{cardinality: {backendChain: {partitions: 2, redundancyFactor: 2}, frontend: {replicas: 1}}, generateResourceLimits: {cpu: enabled}, diagnostics: {traces: {mode: Disabled}, metrics: {prometheusPort: 9600}}, advanced: {encryptInternalTraffic: Disabled, internalCerts: {duration: 240h, renewBefore: 45m, privateKey: {algorithm: Ec256, rotationPolicy: Always}}}}";
    let manifest = broker(spec);
    for what in [
        "cardinality",
        "generateResourceLimits",
        "diagnostics.traces",
        "advanced.encryptInternalTraffic",
        "advanced.internalCerts",
    ] {
        noted(&[PLAIN, ("b.yaml", &manifest)], &format!("note: {what} has no effect on a gateway"));
    }
}

#[test]
fn what_a_broker_logs_has_one_of_five_levels() {
    broker_refused(
        "{diagnostics: {logs: {level: inf}}}",
        &[
            "diagnostics.logs.level must be one of error, warn, info, debug, trace, and this is \"inf\"; did you mean \"info\"?",
        ],
    );
}

#[test]
fn buffers_on_disk_are_checked_and_then_refused() {
    broker_refused(
        "{diskBackedMessageBuffer: {maxSize: 10G}}",
        &[
            "diskBackedMessageBuffer is not supported: queues grow in memory only; persistence keeps them over a restart",
        ],
    );
    broker_refused(
        "{diskBackedMessageBuffer: {maxSize: 10GB}}",
        &["maxSize must be digits and one of K, M, G, T, P, E, and this is \"10GB\""],
    );
    broker_refused(
        "{highPriorityMessagesBackpressureHandling: Accept}",
        &["highPriorityMessagesBackpressureHandling is not supported yet by this version"],
    );
}

#[test]
fn the_size_of_persistence_is_a_quantity_within_bounds() {
    for size in ["16777216", "1.5G", "1g", "1k", "Gi", "i", "-1G", "1 G", "1GB", "1Gii", "\u{a0}1G"] {
        broker_refused(
            &format!("{{persistence: {{maxSize: \"{size}\"}}}}"),
            &[
                "b.yaml:4:31: error: persistence.maxSize must be digits and one of K, M, G, T, P, E (powers of 1000) or Ki",
            ],
        );
    }
    for size in ["0M", "16M", "1025Gi", "2T", "1E", "99999999999999999999999999Ei"] {
        let expected = format!("persistence.maxSize is \"{size}\", outside 16777216 to 1099511627776 bytes");
        broker_refused(&format!("{{persistence: {{maxSize: {size}}}}}"), &[&expected]);
    }
    broker_refused("{persistence: {maxSize: 1000}}", &["this is the number 1000; write it in quotes"]);
    broker_refused("{persistence: {retain: {mode: All}}}", &["the field \"maxSize\" of persistence is missing"]);
    noted(
        &[PLAIN, ("b.yaml", &broker("{persistence: {maxSize: 100M}}"))],
        "b.yaml:4:31: note: persistence.maxSize is \"100M\", and the vendor's broker needs more than 100M",
    );
}

#[test]
fn encryption_that_is_asked_for_is_refused_and_its_absence_noted() {
    broker_refused(
        "{persistence: {maxSize: 1G, encryption: {mode: Enabled}}}",
        &[
            "b.yaml:4:54: error: this broker does not encrypt what it writes: put the state folder on an encrypted file system",
        ],
    );
    broker_refused(
        "{persistence: {maxSize: 1G, encryption: {}}}",
        &["the field \"mode\" of persistence.encryption is missing"],
    );
    noted(
        &[PLAIN, ("b.yaml", &broker("{persistence: {maxSize: 1G}}"))],
        "b.yaml:4:21: note: what persistence writes is not encrypted here",
    );
    let complete = "{persistence: {maxSize: 1G, encryption: {mode: Disabled}, retain: {mode: All}, subscriberQueue: {mode: None}, stateStore: {mode: None}}}";
    assert_eq!(findings(&[PLAIN, ("b.yaml", &broker(complete))]), "");
}

#[test]
fn what_a_persistence_leaves_out_is_noted() {
    let manifest = broker("{persistence: {maxSize: 1G, persistentVolumeClaimSpec: {accessModes: [ReadWriteOncePod]}}}");
    for expected in [
        "b.yaml:4:21: note: persistence without retain means the mode None: a restart loses retained messages",
        "b.yaml:4:21: note: persistence without subscriberQueue means the mode None: a restart loses queued messages",
        "b.yaml:4:62: note: persistence.persistentVolumeClaimSpec has no effect on a gateway",
    ] {
        noted(&[PLAIN, ("b.yaml", &manifest)], expected);
    }
    broker_refused(
        "{persistence: {maxSize: 1G, persistentVolumeClaimSpec: {accessMode: []}}}",
        &["unknown field \"accessMode\" of the volume claim; did you mean \"accessModes\"?"],
    );
}

#[test]
fn there_is_no_state_store_to_keep() {
    for mode in ["{mode: All}", "{mode: Custom, stateStoreSettings: {dynamic: {mode: Enabled}}}"] {
        broker_refused(
            &format!("{{persistence: {{maxSize: 1G, stateStore: {mode}}}}}"),
            &["b.yaml:4:47: error: the mode of persistence.stateStore must be None: this version has no state store"],
        );
    }
    broker_refused(
        "{persistence: {maxSize: 1G, stateStore: {mode: Custom, stateStoreSettings: {stateStoreResources: [{keyType: Patern}]}}}}",
        &["did you mean \"Pattern\"?", "the field \"keys\" of stateStoreResources[] is missing"],
    );
}

#[test]
fn policies_of_persistence_are_checked() {
    let of = |policies: &str| format!("{{persistence: {{maxSize: 1G, {policies}}}}}");
    let topics = |topics: &str| of(&format!("retain: {{mode: Custom, retainSettings: {{topics: {topics}}}}}"));
    let clients = |clients: &str| {
        of(&format!("subscriberQueue: {{mode: Custom, subscriberQueueSettings: {{subscriberClientIds: {clients}}}}}"))
    };
    let many: Vec<String> = (0..65).map(|number| format!("t{number}")).collect();
    for (spec, expected) in [
        (of("retain: {mode: Some}"), "mode must be one of None, All, Custom"),
        (of("retain: {mode: Custom}"), "the field \"retainSettings\" of persistence.retain is missing"),
        (of("retain: {mode: All, retainSettings: {topics: [a]}}"), "error: retainSettings belongs to mode Custom"),
        (
            of("retain: {mode: Custom, retainSettings: {}}"),
            "b.yaml:4:74: error: retainSettings covers nothing: it needs topics, or dynamic: {mode: Enabled}, or the mode None",
        ),
        (
            of("subscriberQueue: {mode: Custom, subscriberQueueSettings: {dynamic: {mode: Disabled}}}"),
            "subscriberQueueSettings covers nothing: it needs subscriberClientIds",
        ),
        (of("retain: {mode: Custom, retainSettings: {dynamic: {}}}"), "the field \"mode\" of dynamic is missing"),
        (of("retains: {mode: All}"), "unknown field \"retains\" of persistence; did you mean \"retain\"?"),
        (topics("[]"), "b.yaml:4:83: error: topics has 0 elements, outside 1 to 64"),
        (topics(&format!("[{}]", many.join(", "))), "error: topics has 65 elements, outside 1 to 64"),
        (
            topics(&format!("[{}, {}]", "a".repeat(9_000), "b".repeat(9_000))),
            "error: topics takes 18000 bytes, and 16384 is the most",
        ),
        (topics("[a, 'b/c#']"), "b.yaml:4:90: error: \"b/c#\" is no topic filter: \"#\" must stand alone"),
        (topics("['']"), "\"\" is no topic filter: it is empty"),
        (topics("[a, b, a]"), "b.yaml:4:90: error: \"a\" stands here twice"),
        (topics(&format!("[{}a]", "a/".repeat(128))), "the topic has more than 128 levels"),
        (topics("[$share/g/a]"), "\"$share/g/a\": a message is retained under a topic, not for a shared subscription"),
        (clients("[]"), "subscriberClientIds has 0 elements, outside 1 to 64"),
        (clients("[a, '']"), "b.yaml:4:118: error: a client identifier must not be empty"),
        (clients("[\"a\\0\"]"), "contains U+0000, and no client identifier does"),
        (clients(&format!("['*{}*']", "a".repeat(129))), "a client identifier has at most 128 bytes, and this has 129"),
        (clients("[1]"), "an element of subscriberClientIds must be text"),
    ] {
        broker_refused(&spec, &[expected]);
    }
    noted(
        &[PLAIN, ("b.yaml", &broker(&topics("['a/*', $SYS/x]")))],
        "note: the \"*\" in \"a/*\" stands for itself: wildcards of topics are + and #",
    );
}

#[test]
fn packet_sizes_are_the_least_of_all_limits() {
    let bytes = |spec: &str| {
        let manifest = broker(spec);
        let loaded = load_embedded(&[PLAIN, ("b.yaml", &manifest)], &LoadOptions::default()).unwrap();
        (loaded.configuration.clients.max_packet_size_bytes, loaded.notes.0.len())
    };
    assert_eq!(bytes("{}"), (1_048_576, 0));
    assert_eq!(bytes("{advanced: {clients: {maxPacketSizeBytes: 1000}}}"), (1_000, 0));
    assert_eq!(bytes("{advanced: {clients: {maxPacketSizeBytes: 2000000}}}"), (1_048_576, 1));
}

// --- BrokerListener

#[test]
fn a_port_number_is_1_to_65535() {
    listener_refused("ports: [{port: 0}]", &["any.listener.yaml:1:16: error: port is 0, outside 1 to 65535"]);
    listener_refused("ports: [{port: 65536}]", &["port is 65536, outside 1 to 65535"]);
    listener_refused("ports: [{port: '1883'}]", &["port must be a whole number, and this is the text \"1883\""]);
}

#[test]
fn a_listener_needs_a_port() {
    listener_refused("ports: []", &["any.listener.yaml:1:8: error: ports is empty"]);
    listener_refused("serviceType: ClusterIp", &["the field \"ports\" of the spec of BrokerListener is missing"]);
}

#[test]
fn two_listeners_on_one_port_are_refused() {
    refused(
        &[
            ("abc.listener.yaml", "ports: [{port: 1883}]"),
            ("def.listener.yaml", "serviceType: LoadBalancer\nports: [{port: 1883}]"),
        ],
        &["def.listener.yaml:2:16: error: the port 1883 is taken already, at abc.listener.yaml:1:16"],
    );
    listener_refused("ports: [{port: 1883}, {port: 1883}]", &["the port 1883 is taken already"]);
}

#[test]
fn a_node_port_listener_binds_its_node_port() {
    listener_refused("serviceType: NodePort\nports: [{port: 1883}]", &["needs nodePort"]);
    let loaded = load_embedded(
        &[("abc.listener.yaml", "serviceType: nodePort\nports: [{port: 1883, nodePort: 31883}]")],
        &LoadOptions::default(),
    )
    .unwrap();
    assert_eq!(loaded.configuration.ports[0].port, 31_883);
    noted(
        &[("abc.listener.yaml", "ports: [{port: 1883, nodePort: 31883}]")],
        "nodePort has no effect on a ClusterIp listener",
    );
}

#[test]
fn two_listeners_of_one_service_type_are_noted() {
    noted(
        &[("abc.listener.yaml", "ports: [{port: 1}]"), ("def.listener.yaml", "ports: [{port: 2}]")],
        "the listener \"abc\" has the service type ClusterIp too",
    );
}

#[test]
fn a_service_name_belongs_to_one_listener() {
    refused(
        &[("abc.listener.yaml", "ports: [{port: 1}]"), ("def.listener.yaml", "serviceName: abc\nports: [{port: 2}]")],
        &["def.listener.yaml:1:14: error: the serviceName \"abc\" belongs to the listener \"abc\" already"],
    );
}

#[test]
fn authorization_without_authentication_is_refused() {
    refused(
        &[("abc.listener.yaml", "ports:\n- port: 1\n  authorizationRef: abac\n"), ("abac.authorization.yaml", "[]")],
        &["abc.listener.yaml:3:21: error: authorizationRef without authenticationRef"],
    );
}

#[test]
fn certificates_on_a_port_without_tls_are_refused() {
    let ca = config_pki::authority();
    let files = [
        ("abc.listener.yaml", "ports:\n- port: 1\n  authenticationRef: certs\n"),
        ("certs.x509.json", "{}"),
        ("trust/client-ca/ca.pem", ca.as_str()),
    ];
    let found = load_embedded(&files, &LoadOptions::default()).unwrap_err();
    assert_eq!(found.errors(), 1, "{found}");
    assert!(
        found
            .to_string()
            .contains("abc.listener.yaml:3:22: error: port 1 has no tls, and \"certs\" uses the method X509"),
        "{found}"
    );
}

#[test]
fn dangling_references_name_the_nearest() {
    refused(
        &[
            (
                "abc.listener.yaml",
                "brokerRef: defualt\nports: [{port: 1, authenticationRef: x509-auht, authorizationRef: zzz}]",
            ),
            ("x509-auth.x509.json", "{}"),
        ],
        &[
            "there is no BrokerAuthentication named \"x509-auht\"; did you mean \"x509-auth\"?",
            "there is no BrokerAuthorization named \"zzz\"; there is none",
            "abc.listener.yaml:1:12: error: there is no Broker named \"defualt\"; did you mean \"default\"?",
        ],
    );
}

#[test]
fn a_reference_to_a_resource_with_a_mistake_is_not_called_dangling() {
    let found = findings(&[
        ("abc.listener.yaml", "ports: [{port: 1, authenticationRef: certs}]"),
        ("certs.authentication.yaml", "[]"),
    ]);
    assert!(!found.contains("there is no BrokerAuthentication"), "{found}");
}

#[test]
fn tls_modes_need_their_own_settings() {
    listener_refused(
        "ports: [{port: 1, tls: {mode: Manual}}]",
        &["the field \"manual\" of tls is missing for mode Manual"],
    );
    listener_refused(
        "ports: [{port: 1, tls: {mode: Manual, manual: {}}}]",
        &["the field \"secretRef\" of tls.manual is missing"],
    );
    listener_refused("ports: [{port: 1, tls: {manual: {secretRef: abc}}}]", &["the field \"mode\" of tls is missing"]);
    listener_refused(
        "ports: [{port: 1, tls: {mode: Manuel, manual: {secretRef: abc}}}]",
        &["did you mean \"Manual\"?"],
    );
    listener_refused(
        "ports: [{port: 1, tls: {mode: Manual, manual: {secretRef: abc}, certManagerCertificateSpec: {issuerRef: {name: a, kind: Issuer}}}}]",
        &["certManagerCertificateSpec belongs to mode Automatic"],
    );
}

#[test]
fn the_name_of_a_secret_leads_to_no_other_folder() {
    for name in ["../etc", "a/b", "..", "/etc"] {
        listener_refused(
            &format!("ports: [{{port: 1, tls: {{mode: Manual, manual: {{secretRef: {name}}}}}}}]"),
            &["cannot be the name of a Secret"],
        );
    }
}

/// A listener whose only port has this `certManagerCertificateSpec`, written in line 1.
fn automatic(spec: &str) -> String {
    format!("ports: [{{port: 8883, tls: {{mode: Automatic, certManagerCertificateSpec: {spec}}}}}]")
}

#[test]
fn automatic_tls_is_checked() {
    let issuer = "issuerRef: {name: local, kind: Issuer}";
    let key = |algorithm: &str| format!("{{{issuer}, privateKey: {{algorithm: {algorithm}, rotationPolicy: Always}}}}");
    for (spec, expected) in [
        ("{}", "any.listener.yaml:1:73: error: the field \"issuerRef\" of certManagerCertificateSpec is missing"),
        (
            "{issuerRef: {name: a, kind: issuer}}",
            "issuerRef.kind must be one of Issuer, ClusterIssuer, and this is \"issuer\"; did you mean \"Issuer\"?",
        ),
        ("{issuerRef: {name: ../a, kind: Issuer}}", "\"../a\" cannot be the name of an issuer"),
        (
            "{issuerRef: {name: a, kind: Issuer, group: awspca.cert-manager.io}}",
            "any.listener.yaml:1:116: error: issuerRef.group must be cert-manager.io, and this is \"awspca.cert-manager.io\"",
        ),
        (&key("Ec255"), "privateKey.algorithm must be one of Ec256"),
        (&key("Ec521"), "this privateKey.algorithm is refused: the TLS stack cannot sign with P-521; use Ec256"),
        (&key("rsa2048"), "this privateKey.algorithm is refused: signing with RSA is not constant time"),
        (
            &format!("{{{issuer}, duration: 10d}}"),
            "any.listener.yaml:1:124: error: duration must be a duration in h, m or s such as 240h, and this is \"10d\"",
        ),
        (&format!("{{{issuer}, duration: 59m, renewBefore: 10m}}"), "duration must be 1h to 876000h"),
        (
            &format!("{{{issuer}, duration: 24h}}"),
            "renewBefore (240h where it is absent) must be shorter than duration",
        ),
        (&format!("{{{issuer}, renewBefore: 720h}}"), "must be shorter than duration (720h where it is absent)"),
        (&format!("{{{issuer}, renewBefore: 1m}}"), "renewBefore must be at least 5m"),
        (&format!("{{{issuer}, secretName: ../x}}"), "\"../x\" cannot be the name of a Secret"),
        (&format!("{{{issuer}, san: {{dns: ['a.*.b']}}}}"), "\"a.*.b\" is no DNS name"),
        (&format!("{{{issuer}, san: {{dns: [10.0.0.1]}}}}"), "\"10.0.0.1\" is an IP address: it belongs into san.ip"),
        (&format!("{{{issuer}, san: {{dns: [a.b, a.b]}}}}"), "the name \"a.b\" stands here twice"),
        (&format!("{{{issuer}, san: {{ip: [a.b]}}}}"), "\"a.b\" is no IP address"),
        (&format!("{{{issuer}, san: {{ip: ['::1', '0:0::1']}}}}"), "the name \"::1\" stands here twice"),
        (&format!("{{{issuer}, secretname: a}}"), "unknown field \"secretname\" of certManagerCertificateSpec"),
    ] {
        listener_refused(&automatic(spec), &[expected]);
    }
    listener_refused(
        "ports: [{port: 1, tls: {mode: Automatic}}]",
        &["the field \"certManagerCertificateSpec\" of tls is missing for mode Automatic"],
    );
    listener_refused(
        "ports: [{port: 1, tls: {mode: Automatic, manual: {secretRef: a}, certManagerCertificateSpec: {issuerRef: {name: a, kind: Issuer}}}}]",
        &["tls.manual belongs to mode Manual, and the mode is Automatic"],
    );
}

#[test]
fn each_certificate_is_kept_under_a_name_of_its_own() {
    let spec =
        "{mode: Automatic, certManagerCertificateSpec: {issuerRef: {name: local, kind: Issuer}, secretName: one}}";
    listener_refused(
        &format!("ports:\n- port: 1\n  tls: {spec}\n- port: 2\n  tls: {spec}\n"),
        &[
            "any.listener.yaml:5:107: error: the certificate of port 2 would be kept as \"one\", which belongs to any.listener.yaml:3:107 already",
        ],
    );
    listener_refused(
        &format!("ports:\n- port: 1\n  tls: {spec}\n- port: 2\n  tls: {{mode: Manual, manual: {{secretRef: one}}}}\n"),
        &["any.listener.yaml:3:107: error: the certificate of port 1 would be kept as \"one\""],
    );
}

// --- BrokerAuthentication

#[test]
fn the_device_registry_of_the_cloud_is_refused_with_the_alternative() {
    authentication_refused(
        "authenticationMethods: [{method: X509, x509Settings: {additionalValidation: azureDeviceRegistry}}]",
        &[
            "certs.authentication.yaml:1:77: error: additionalValidation AzureDeviceRegistry is refused: a gateway cannot ask the registry in the cloud; the deny list",
        ],
    );
}

fn custom(settings: &str) -> String {
    format!("authenticationMethods: [{{method: Custom, customSettings: {settings}}}]")
}

#[test]
fn a_custom_server_is_checked() {
    for (settings, expected) in [
        ("{}", "certs.authentication.yaml:1:58: error: the field \"endpoint\" of customSettings is missing"),
        (
            "{endpoint: 'http://x'}",
            "certs.authentication.yaml:1:70: error: endpoint \"http://x\" is not usable: it must begin with https://",
        ),
        (
            "{endpoint: 'https://x:0'}",
            "certs.authentication.yaml:1:79: error: endpoint \"https://x:0\" is not usable: its port is not 1 to 65535",
        ),
        ("{endpoint: 'https://x/?a=b'}", "it must not have a query"),
        ("{endpoint: 'https://x/#a'}", "it must not have a fragment"),
        ("{endpoint: 'https://a_b'}", "its host is neither a DNS name nor an IP address"),
        ("{endpoint: 'https://x', caCertConfigMap: absent}", "there is no ConfigMap named \"absent\""),
        ("{endpoint: 'https://x', auth: {}}", "the field \"x509\" of auth is missing"),
        ("{endpoint: 'https://x', auth: {x509: {}}}", "the field \"secretRef\" of auth.x509 is missing"),
        ("{endpoint: 'https://x', auth: {x509: {secretRef: ../a}}}", "\"../a\" cannot be the name of a Secret"),
        ("{endpoint: 'https://x', auth: {x509: {secretName: a}}}", "unknown field \"secretName\" of auth.x509"),
        ("{endpoint: 'https://x', header: {a: b}}", "unknown field \"header\" of customSettings"),
        (
            "{endpoint: 'https://x', headers: {a b: c}}",
            "certs.authentication.yaml:1:92: error: the header \"a b\" has no valid name",
        ),
        ("{endpoint: 'https://x', headers: {HOST: c}}", "the header \"HOST\" is written by the broker itself"),
        ("{endpoint: 'https://x', headers: {a: b, A: c}}", "the header \"A\" stands here twice"),
        (
            "{endpoint: 'https://x', headers: {a: \"b\\r\\nc: d\"}}",
            "the header \"a\" has a value that is not visible ASCII",
        ),
        ("{endpoint: 'https://x', headers: {a: 1}}", "the value of the header \"a\" must be text"),
    ] {
        authentication_refused(&custom(settings), &[expected]);
    }
    authentication_refused(
        "authenticationMethods: [{method: Custom}]",
        &["the field \"customSettings\" is missing for method Custom"],
    );
}

#[test]
fn no_message_shows_the_credentials_for_a_custom_server() {
    for settings in [
        "{endpoint: 'https://user:SECRETTEXT@x'}",
        "{endpoint: 'https://x', headers: {authorization: \"SECRETTEXT\\n\"}}",
        "{endpoint: 'https://x', headers: {authorization: [SECRETTEXT]}}",
        "{endpoint: 'https://x', headers: {'a b': SECRETTEXT}}",
        "{endpoint: 'https://x', headers: {host: SECRETTEXT}}",
    ] {
        let found = findings(&[PLAIN, ("certs.authentication.yaml", &custom(settings))]);
        assert!(found.contains(": error: ") && !found.contains("SECRETTEXT"), "{found}");
    }
    let number =
        findings(&[PLAIN, ("certs.authentication.yaml", &custom("{endpoint: 'https://x', headers: {a: 31337}}"))]);
    assert!(number.contains(": error: ") && !number.contains("31337"), "{number}");
}

#[test]
fn a_custom_method_before_others_and_a_second_of_another_are_noted() {
    let custom =
        "{method: Custom, customSettings: {endpoint: 'https://x', auth: {x509: {secretRef: abc, namespace: d}}}}";
    let password = "{method: UsernamePassword, usernamePasswordSettings: {secretRef: users}}";
    let notes = |methods: &[&str]| {
        let body = format!("authenticationMethods:\n- {}\n", methods.join("\n- "));
        match load_embedded(&[PLAIN, ("certs.authentication.yaml", &body)], &LoadOptions::default()) {
            Ok(loaded) => loaded.notes.to_string(),
            Err(errors) => panic!("refused:\n{errors}"),
        }
    };
    let first = notes(&[custom, password]);
    assert!(
        first.contains("certs.authentication.yaml:2:3: note: the methods after Custom are consulted only while"),
        "{first}"
    );
    assert!(first.contains("note: auth.x509.namespace has no effect"), "{first}");
    assert!(!notes(&[password, custom]).contains("the methods after Custom"));
    assert!(notes(&[password, password]).contains(":3:3: note: a second UsernamePassword method is never consulted"));
}

#[test]
fn audiences_are_checked() {
    let audiences = |audiences: &str| {
        format!(
            "authenticationMethods: [{{method: serviceAccountToken, serviceAccountTokenSettings: {{audiences: {audiences}}}}}]"
        )
    };
    authentication_refused(&audiences("[]"), &["certs.authentication.yaml:1:96: error: audiences is empty"]);
    authentication_refused(&audiences("['']"), &["an element of audiences must not be empty"]);
    authentication_refused(&audiences("[a, b, a]"), &["the audience \"a\" stands here twice"]);
    authentication_refused(
        "authenticationMethods: [{method: ServiceAccountToken}]",
        &["the field \"serviceAccountTokenSettings\" is missing for method ServiceAccountToken"],
    );
}

#[test]
fn tokens_need_somebody_who_judges_them() {
    let body =
        "authenticationMethods:\n- method: ServiceAccountToken\n  serviceAccountTokenSettings: {audiences: [a]}\n";
    authentication_refused(
        body,
        &[
            "certs.authentication.yaml:2:3: error: the method ServiceAccountToken needs to know who judges tokens; add to the spec of the Gateway either serviceAccountTokens: {tokenReview: {endpoint: \"https://10.0.0.1:6443\", caCertConfigMap: cluster-ca, tokenSecretRef: api-token}} or serviceAccountTokens: {issuers: [{issuer:",
        ],
    );
    let broken = gateway("{serviceAccountTokens: {}}");
    let found = findings(&[PLAIN, ("certs.authentication.yaml", body), ("g.yaml", &broken)]);
    assert!(found.contains("needs either tokenReview or issuers") && !found.contains("who judges tokens"), "{found}");
}

#[test]
fn a_password_file_is_a_secret() {
    let method = |settings: &str| {
        format!("authenticationMethods: [{{method: UsernamePassword, usernamePasswordSettings: {settings}}}]")
    };
    authentication_refused(&method("{}"), &["the field \"secretRef\" of usernamePasswordSettings is missing"]);
    authentication_refused(&method("{secretRef: ../a}"), &["\"../a\" cannot be the name of a Secret"]);
    authentication_refused(&method("{secretRef: a, secretName: a}"), &["leave secretName out"]);
    authentication_refused(
        "authenticationMethods: [{method: UsernamePassword}]",
        &["the field \"usernamePasswordSettings\" is missing for method UsernamePassword"],
    );
    let preview = method("{secretName: users}");
    let files = [PLAIN, ("users.authentication.yaml", preview.as_str())];
    noted(&files, "users.authentication.yaml:1:91: note: secretName is the preview's name of secretRef");
    noted(&files, "note: the gateway reads secrets/users/passwords.toml itself; it is never embedded");
}

#[test]
fn passwords_beyond_loopback_without_tls_are_noted() {
    let body = "authenticationMethods: [{method: UsernamePassword, usernamePasswordSettings: {secretRef: users}}]";
    let port =
        |service_type: &str| format!("serviceType: {service_type}\nports: [{{port: 1883, authenticationRef: users}}]");
    let outside = port("LoadBalancer");
    noted(
        &[("any.listener.yaml", &outside), ("users.authentication.yaml", body)],
        "any.listener.yaml:2:41: note: port 1883 has no tls and is bound beyond loopback: the passwords and tokens that \"users\" asks for can be read on the network",
    );
    let found = findings(&[("any.listener.yaml", &port("ClusterIp")), ("users.authentication.yaml", body)]);
    assert!(!found.contains("beyond loopback"), "{found}");
    let bind = gateway("{bind: {clusterIp: [10.0.0.1]}}");
    let files = [("any.listener.yaml", &*port("ClusterIp")), ("users.authentication.yaml", body), ("g.yaml", &bind)];
    noted(&files, "is bound beyond loopback");
}

#[test]
fn settings_of_another_method_are_refused() {
    authentication_refused(
        "authenticationMethods: [{method: X509, customSettings: {endpoint: 'https://x'}}]",
        &["certs.authentication.yaml:1:56: error: customSettings does not belong to method X509"],
    );
}

#[test]
fn a_method_is_needed_and_its_name_checked() {
    authentication_refused("authenticationMethods: []", &["authenticationMethods is empty"]);
    authentication_refused(
        "authenticationMethods: [{method: X508}]",
        &[
            "method must be one of X509, Custom, ServiceAccountToken, UsernamePassword, and this is \"X508\"; did you mean \"X509\"?",
        ],
    );
    authentication_refused(
        "authenticationMethods: [{x509Settings: {}}]",
        &["the field \"method\" of authenticationMethods[] is missing"],
    );
}

#[test]
fn a_mistake_in_a_subject_points_into_the_text() {
    refused(
        &[
            PLAIN,
            (
                "certs.x509.json",
                "{\"authorizationAttributes\": {\"a\": {\"subject\": \"CN = x, XY = y\", \"attributes\": {}}}}",
            ),
        ],
        &["certs.x509.json:1:56: error: \"CN = x, XY = y\" is no distinguished name"],
    );
}

#[test]
fn two_entries_for_one_subject_are_refused() {
    refused(
        &[
            PLAIN,
            (
                "certs.x509.yaml",
                "authorizationAttributes:\n  a: {subject: 'CN = x, O = y', attributes: {k: v}}\n  b: {subject: 'O=y,CN=x', attributes: {k: w}}\n",
            ),
        ],
        &["certs.x509.yaml:3:16: error: the entry \"a\" has this subject too"],
    );
}

#[test]
fn attributes_must_be_text_and_fit_a_client() {
    refused(
        &[PLAIN, ("certs.x509.yaml", "authorizationAttributes: {a: {subject: CN=x, attributes: {building: 17}}}")],
        &["a value of attributes must be text, and this is the number 17; write it in quotes"],
    );
    let many = (0..17).map(|index| format!("a{index}: v")).collect::<Vec<_>>().join(", ");
    refused(
        &[
            PLAIN,
            ("certs.x509.yaml", &format!("authorizationAttributes: {{a: {{subject: CN=x, attributes: {{{many}}}}}}}")),
        ],
        &["17 attributes, and a client holds 16"],
    );
    let long = "v".repeat(600);
    refused(
        &[
            PLAIN,
            (
                "certs.x509.yaml",
                &format!("authorizationAttributes: {{a: {{subject: CN=x, attributes: {{k: {long}}}}}}}"),
            ),
        ],
        &["the attributes take 605 bytes"],
    );
}

// --- BrokerAuthorization

#[test]
fn a_policy_without_rules_denies_everything_and_says_so() {
    for body in [
        "[]",
        "{authorizationPolicies: {}}",
        "{authorizationPolicies: {rules: null}}",
        "{authorizationPolicies: {rules: []}}",
        "{cache: Disabled}",
    ] {
        noted(&[PLAIN, ("any.authorization.yaml", body)], "there are no rules: every client is denied everything");
    }
}

#[test]
fn empty_principals_are_refused() {
    for principals in ["{}", "{usernames: []}", "{usernames: [], clientIds: [], attributes: []}"] {
        rules_refused(
            &format!("[{{principals: {principals}, brokerResources: [{{method: Connect}}]}}]"),
            &["any.authorization.yaml:1:15: error: principals is empty"],
        );
    }
    rules_refused("[{brokerResources: [{method: Connect}]}]", &["the field \"principals\" of rules[] is missing"]);
    rules_refused(
        "[{principals: {attributes: [{}]}, brokerResources: [{method: Connect}]}]",
        &["any.authorization.yaml:1:29: error: an empty element of attributes would match every client"],
    );
    rules_refused(
        "[{principals: {usernames: ['']}, brokerResources: [{method: Connect}]}]",
        &["a username must not be empty"],
    );
}

#[test]
fn topics_are_needed_once_each_for_publish_and_subscribe() {
    let with = |resource: &str| format!("[{{principals: {{usernames: [u]}}, brokerResources: [{resource}]}}]");
    rules_refused(&with("{method: Publish}"), &["the method Publish needs topics"]);
    rules_refused(
        &with("{method: subscribe, topics: []}"),
        &["topics is empty: the method Subscribe needs at least one"],
    );
    rules_refused(&with("{method: Publish, topics: [a, b, a]}"), &["the topic \"a\" stands here twice"]);
    rules_refused(&with("{method: Publish, topics: ['']}"), &["\"\" is no topic filter: it is empty"]);
    rules_refused(&with("{method: Publish, topics: [a], clientIds: [x]}"), &["clientIds restricts only Connect"]);
    rules_refused(&with("{method: Connect, clientIds: ['a*b']}"), &["\"*\" is understood only at the end"]);
    rules_refused(
        &with("{method: Conect}"),
        &["method must be one of Connect, Publish, Subscribe, and this is \"Conect\"; did you mean \"Connect\"?"],
    );
    rules_refused(
        &with("{method: Publish, topcs: [a]}"),
        &["unknown field \"topcs\" of brokerResources[]; did you mean \"topics\"?"],
    );
    let connect = with("{method: Connect, topics: [a]}");
    noted(&[PLAIN, ("any.authorization.yaml", &connect)], "topics has no effect on the method Connect");
    assert!(
        !findings(&[PLAIN, ("any.authorization.yaml", &with("{method: Connect, topics: [], clientIds: []}"))])
            .contains("topics")
    );
}

#[test]
fn invalid_topic_filters_point_at_the_level() {
    let with = |topic: &str| {
        format!(
            "- principals: {{usernames: [u]}}\n  brokerResources:\n  - method: Publish\n    topics:\n    - {topic}\n"
        )
    };
    rules_refused(
        &with("a/b+/c"),
        &["any.authorization.yaml:5:9: error: \"a/b+/c\" is no topic filter: \"+\" must fill its whole level"],
    );
    rules_refused(
        &with("'a/#/c'"),
        &["any.authorization.yaml:5:10: error: \"a/#/c\" is no topic filter: \"#\" must stand alone in the last level"],
    );
    rules_refused(&with("$share/g/a"), &["rules judge the filter of a shared subscription without $share/<group>/"]);
    rules_refused(&with(&vec!["a"; 129].join("/")), &["more than 128 levels"]);
    noted(&[PLAIN, ("any.authorization.yaml", &with("sensor/*"))], "the \"*\" in \"sensor/*\" stands for itself");
}

#[test]
fn patterns_that_no_topic_can_be_are_refused_whatever_their_length() {
    let publish = |topic: &str| {
        format!("- principals: {{usernames: [u]}}\n  brokerResources: [{{method: Publish, topics: [{topic}]}}]\n")
    };
    assert!(
        load_embedded(&[PLAIN, ("any.authorization.yaml", &publish(&"a".repeat(65_535)))], &LoadOptions::default())
            .is_ok()
    );
    rules_refused(&publish(&"a".repeat(65_536)), &["it is longer than 65535 bytes"]);
    rules_refused(&publish(&format!("'{}'", "/".repeat(30_000))), &["more than 128 levels"]);
    rules_refused(&publish(r#""a\0b""#), &["U+0000"]);
    let json = |topic: &str| {
        format!(
            r#"[{{"principals":{{"usernames":["u"]}},"brokerResources":[{{"method":"Publish","topics":["{topic}"]}}]}}]"#
        )
    };
    for (topic, expected) in [(r"a\ud800", "surrogate"), (r"\udfff/b", "surrogate"), (r"a\u0000", "U+0000")] {
        refused(&[PLAIN, ("any.authorization.json", &json(topic))], &[expected]);
    }
}

#[test]
fn more_rules_than_the_board_holds_are_refused_with_how_many_are_too_many() {
    let rules = r#"{"principals":{"usernames":["u"]},"brokerResources":[{"method":"Connect"}]},"#.repeat(16_385);
    let rules = format!("[{}]", rules.trim_end_matches(','));
    refused(
        &[PLAIN, ("any.authorization.json", &rules)],
        &["authorization rules: 16385, board 'host' holds 16384: 1 too many"],
    );
}

#[test]
fn a_token_is_accepted_where_it_has_a_meaning_and_refused_elsewhere() {
    let rule =
        |principals: &str, resource: &str| format!("[{{principals: {principals},\n  brokerResources: [{resource}]}}]");
    for (principals, resource) in [
        ("{usernames: ['{principal.clientId}']}", "{method: Connect}"),
        ("{clientIds: ['device-{principal.username}']}", "{method: Connect}"),
        ("{attributes: [{a: '{principal.clientId}'}]}", "{method: Connect}"),
        ("{usernames: [u]}", "{method: Connect, clientIds: ['{principal.attributes.building}*']}"),
        ("{usernames: [u]}", "{method: Publish, topics: ['a/{principal.clientId}/b']}"),
        ("{usernames: [u]}", "{method: Subscribe, topics: ['{principal.attributes.a.b}/#']}"),
    ] {
        let text = rule(principals, resource);
        let loaded = load_embedded(&[PLAIN, ("any.authorization.yaml", &text)], &LoadOptions::default());
        assert!(loaded.is_ok(), "{text}: {loaded:?}");
    }
    let u = "{usernames: [u]}";
    for (principals, resource, expected) in [
        // Scenario 47.
        (
            u,
            "{method: Subscribe, topics: ['client-{principal.clientId}/#']}",
            "2:51: error: \"client-{principal.clientId}/#\": a token must fill its whole level",
        ),
        (
            u,
            "{method: Publish, topics: ['a/{principal.clientId}*']}",
            "2:51: error: \"a/{principal.clientId}*\": a token must",
        ),
        (u, "{method: Publish, topics: ['a/{clientId}']}", "2:51: error: \"a/{clientId}\": not a token; there are"),
        (u, "{method: Publish, topics: ['a/{principal.clientid}']}", "not a token"),
        (u, "{method: Publish, topics: ['{a/b}']}", "a brace without its other half"),
        (u, "{method: Connect, clientIds: ['{principal.attributes.}']}", "not a token"),
        (u, "{method: Connect, clientIds: ['{principal.username}*x*']}", "is understood only at the end"),
        ("{usernames: ['{principal.clientId']}", "{method: Connect}", "1:29: error: \"{principal.clientId\": a brace"),
        ("{attributes: [{'{principal.clientId}': a}]}", "{method: Connect}", "tokens stand for values"),
        ("{attributes: [{a: '{principal}'}]}", "{method: Connect}", "not a token"),
    ] {
        rules_refused(&rule(principals, resource), &[expected]);
    }
}

#[test]
fn principals_that_no_client_can_have_are_refused() {
    let rule = |principals: &str| format!("[{{principals: {principals}, brokerResources: [{{method: Connect}}]}}]");
    rules_refused(
        &rule(&format!("{{usernames: [{}]}}", "u".repeat(257))),
        &["a username has at most 256 bytes, and this has 257"],
    );
    rules_refused(
        &rule(&format!("{{clientIds: [{}]}}", "c".repeat(129))),
        &["a client identifier has at most 128 bytes, and this has 129"],
    );
}

#[test]
fn state_store_rules_are_checked_and_noted() {
    let rule = |resources: &str| {
        format!("[{{principals: {{usernames: [u]}}, brokerResources: [], stateStoreResources: [{resources}]}}]")
    };
    noted(
        &[
            PLAIN,
            (
                "any.authorization.yaml",
                &rule("{method: readWrite, keyType: Pattern, keys: ['clients/{principal.clientId}/*']}"),
            ),
        ],
        "stateStoreResources has no effect yet",
    );
    rules_refused(
        &rule("{method: readwrite, keyType: Binary, keys: ['%']}"),
        &["did you mean \"ReadWrite\"?", "must be base64, and this is \"%\""],
    );
    rules_refused(&rule("{method: Read, keys: [a]}"), &["the field \"keyType\" of stateStoreResources[] is missing"]);
}

#[test]
fn what_a_board_does_not_hold_is_refused_with_the_excess() {
    use std::fmt::Write;
    let mut rules = String::new();
    for index in 0..1_203 {
        writeln!(rules, "- {{principals: {{usernames: [u{index}]}}, brokerResources: [{{method: Connect}}]}}").unwrap();
    }
    let options = LoadOptions { board: Some("rpi3".to_owned()), embed_secrets: false };
    let found = load_embedded(&[PLAIN, ("any.authorization.yaml", &rules)], &options).unwrap_err().to_string();
    assert!(found.contains("error: authorization rules: 1203, board 'rpi3' holds 1000: 203 too many"), "{found}");
}

// --- Gateway

fn gateway(spec: &str) -> String {
    format!("apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {{name: default}}\nspec: {spec}\n")
}

#[test]
fn the_gateway_is_checked() {
    let long = format!("{{responseInformation: {}}}", "x".repeat(1_025));
    for (spec, expected) in [
        ("{board: rpi33}", "g.yaml:4:15: error: unknown board \"rpi33\"; did you mean \"rpi3\"?"),
        ("{bind: {external: [localhost]}}", "\"localhost\" is no IP address"),
        ("{bind: {clusterIp: []}}", "clusterIp is empty"),
        ("{bind: {diagnostics: []}}", "diagnostics is empty"),
        ("{bind: {diagnostics: [127.0.0.1, 10.0.0.1]}}", "bind.diagnostics has 10.0.0.1, which is not on loopback"),
        ("{bind: {diagnostics: ['::']}}", "g.yaml:4:28: error: bind.diagnostics has ::, which is not on loopback"),
        (
            "{bind: {diagnostics: [0.0.0.0]}, diagnosticsTls: {secretRef: s}}",
            "needs trustedClientCaCert, tokenSecretRef, or both",
        ),
        ("{bind: {diagnostics: [0.0.0.0]}, diagnosticsTls: {tokenSecretRef: s}}", "diagnosticsTls needs secretRef"),
        (
            "{bind: {diagnostics: [0.0.0.0]}, diagnosticsTls: {secretRef: s, trustedClientCaCert: ca}}",
            "there is no ConfigMap named \"ca\"",
        ),
        ("{diagnosticsTls: {secretRef: s, token: t}}", "token"),
        (
            "{diagnosticsTls: {secretRef: s, tokenSecretRef: t, updates: yes}}",
            "updates must be one of Allowed, Refused",
        ),
        ("{bind: {clusterIp: ['::1', '0:0::1']}}", "stands here twice"),
        ("{clockPolicy: Ignore}", "clockPolicy must be one of Enforce, AssumeBuildDate"),
        ("{connectDeadlineSeconds: 121}", "connectDeadlineSeconds is 121, outside 1 to 120"),
        ("{connectDeadlineSeconds: 0}", "connectDeadlineSeconds is 0, outside 1 to 120"),
        (&long, "responseInformation has more than 1024 bytes"),
        ("{paths: {secret: x}}", "unknown field \"secret\" of paths; did you mean \"secrets\"?"),
        ("{paths: {issuers: ''}}", "issuers must not be empty"),
        ("{sameKeyAlgorithm: 1}", "sameKeyAlgorithm must be true or false"),
        ("{staleRevocationLists: Ignore}", "staleRevocationLists must be one of Refuse, Accept"),
        ("{clientIdentifiers: share}", "clientIdentifiers must be one of Exclusive, Shared"),
        ("{expiryNotice: true}", "expiryNotice must be text"),
        ("{network: {address: 192.168.1.20}}", "g.yaml:4:27: error: the address \"192.168.1.20\" has no prefix"),
        ("{network: {address: static}}", "the address \"static\" is neither dhcp nor an IPv4 address with its prefix"),
        ("{network: {address: 192.168.1.0/24}}", "is not the address of one machine in its network"),
        (
            "{network: {address: 192.168.1.20/24, gateway: 192.168.2.1}}",
            "g.yaml:4:53: error: the gateway 192.168.2.1 is not in the network of 192.168.1.20/24",
        ),
        ("{network: {address: 192.168.1.20/24, gateway: 192.168.1.20}}", "is the machine's own address"),
        ("{network: {interface: wlan0}}", "interface \"wlan0\": the SD-card image has no Wi-Fi"),
        ("{network: {gateway: router}}", "\"router\" is no IPv4 address"),
        ("{network: {dns: [9.9.9.9, dns.example]}}", "g.yaml:4:33: error: \"dns.example\" is no IPv4 address"),
        ("{network: {dns: []}}", "dns is empty"),
        ("{network: {dns: [9.9.9.1, 9.9.9.2, 9.9.9.3, 9.9.9.4]}}", "dns has more than 3 servers"),
        ("{network: {ntp: ['a:b']}}", "\"a:b\" is neither a name nor an IPv4 address"),
        ("{network: {hostname: a.b}}", "hostname \"a.b\" is not one label"),
        ("{network: {hostname: line-}}", "hostname \"line-\" is not one label"),
        ("{network: {adress: dhcp}}", "unknown field \"adress\" of network; did you mean \"address\"?"),
        ("{commitIntervalMilliseconds: 1001}", "commitIntervalMilliseconds is 1001, outside 0 to 1000"),
    ] {
        refused(&[PLAIN, ("g.yaml", &gateway(spec))], &[expected]);
    }
    let other = gateway("{}").replace("default", "other");
    refused(&[PLAIN, ("g.yaml", &other)], &["a Gateway must be named \"default\""]);
}

#[test]
fn who_judges_tokens_is_checked() {
    let one_issuer = "issuers: [{issuer: i, keysConfigMap: cluster}]";
    let attributes = |attributes: &str| format!("{{{one_issuer}, attributes: {attributes}}}");
    for (tokens, expected) in [
        ("{}", "g.yaml:4:30: error: serviceAccountTokens needs either tokenReview or issuers"),
        ("{tokenReview: {}, issuers: []}", "serviceAccountTokens needs either tokenReview or issuers"),
        ("{tokenReview: {tokenSecretRef: a}}", "the field \"endpoint\" of tokenReview is missing"),
        ("{tokenReview: {endpoint: 'https://x'}}", "tokenReview needs either tokenSecretRef or auth"),
        (
            "{tokenReview: {endpoint: 'https://x', tokenSecretRef: a, auth: {x509: {secretRef: b}}}}",
            "tokenReview needs either tokenSecretRef or auth",
        ),
        ("{tokenReview: {endpoint: 'https://x', tokenSecretRef: ../a}}", "cannot be the name of a Secret"),
        ("{tokenReview: {endpoint: 'https://x', headers: {}}}", "unknown field \"headers\" of tokenReview"),
        (
            "{tokenReview: {endpoint: 'https://x', tokenSecretRef: a}, attributes: {}}",
            "g.yaml:4:100: error: attributes belongs to issuers",
        ),
        ("{issuers: []}", "issuers has 0 elements, outside 1 to 16"),
        ("{issuers: [{}]}", "the field \"issuer\" of issuers[] is missing"),
        ("{issuers: [{issuer: i}]}", "the field \"keysConfigMap\" of issuers[] is missing"),
        (
            "{issuers: [{issuer: i, keysConfigMap: clustre}]}",
            "there is no ConfigMap named \"clustre\"; did you mean \"cluster\"?",
        ),
        (
            "{issuers: [{issuer: i, keysConfigMap: cluster}, {issuer: i, keysConfigMap: cluster}]}",
            "the issuer \"i\" stands here twice",
        ),
        (&attributes("{mqtt-client: {a: b}}"), "\"mqtt-client\" is no service account: it is <namespace>/<name>"),
        (&attributes("{a/b: {c: 1}}"), "a value of the attributes of an account must be text"),
        (&attributes(&format!("{{a/b: {{c: {}}}}}", "d".repeat(600))), "the attributes take 605 bytes"),
    ] {
        let keys = ("keys/cluster/a.json", "{\"keys\": [{\"kty\": \"EC\"}]}");
        let gateway = gateway(&format!("{{serviceAccountTokens: {tokens}}}"));
        refused(&[PLAIN, keys, ("g.yaml", &gateway)], &[expected]);
    }
}

#[test]
fn key_sets_hold_public_keys_and_errors_point_into_their_file() {
    let gateway = gateway("{serviceAccountTokens: {issuers: [{issuer: i, keysConfigMap: cluster}]}}");
    for (keys, expected) in [
        (
            "{}",
            "keys/cluster/a.json:1:1: error: \"a.json\" of the ConfigMap \"cluster\" is no JWK Set of public keys: it has no array",
        ),
        ("{\"keys\": []}", "it has no array \"keys\" with a key in it"),
        (
            "{\n \"keys\": [1]}",
            "keys/cluster/a.json:2:11: error: \"a.json\" of the ConfigMap \"cluster\" is no JWK Set of public keys: a key is a JSON object",
        ),
        (
            "{\"keys\": [{}}",
            "keys/cluster/a.json:1:13: error: \"a.json\" of the ConfigMap \"cluster\" is no JWK Set of public keys: not JSON",
        ),
        (
            "{\"keys\": [{\"d\": \"SECRETTEXT\"}]}",
            "a key has the member \"d\": it is private or shared, and a ConfigMap is public",
        ),
        ("{\"keys\": [{\"kty\": \"oct\", \"k\": \"SECRETTEXT\"}]}", "a key has the member \"k\""),
    ] {
        let files = [PLAIN, ("g.yaml", gateway.as_str()), ("keys/cluster/a.json", keys)];
        refused(&files, &[expected]);
        assert!(!findings(&files).contains("SECRETTEXT"));
    }
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cluster}\ndata:\n  a: |\n    {\"keys\": []}\n";
    refused(
        &[PLAIN, ("g.yaml", &gateway), ("c.yaml", manifest)],
        &["c.yaml:6:5: error: \"a\" of the ConfigMap \"cluster\""],
    );
    let empty = "{apiVersion: v1, kind: ConfigMap, metadata: {name: cluster}}";
    refused(&[PLAIN, ("g.yaml", &gateway), ("c.yaml", empty)], &["the ConfigMap \"cluster\" holds no keys"]);
}

#[test]
fn a_judge_of_tokens_without_tokens_is_noted() {
    let gateway = gateway("{serviceAccountTokens: {tokenReview: {endpoint: 'https://x', tokenSecretRef: a}}}");
    noted(
        &[PLAIN, ("g.yaml", &gateway)],
        "note: serviceAccountTokens has no effect: no method ServiceAccountToken is there",
    );
}

#[test]
fn an_unknown_board_of_the_command_line_is_refused() {
    let options = LoadOptions { board: Some("rpi9".to_owned()), embed_secrets: false };
    let found = load_embedded(&[PLAIN], &options).unwrap_err().to_string();
    assert!(found.contains("unknown board \"rpi9\""), "{found}");
}

#[test]
fn our_own_settings_never_stand_inside_the_vendors_resources() {
    listener_refused(
        "bind: [127.0.0.1]\nports: [{port: 1}]",
        &["unknown field \"bind\" of the spec of BrokerListener"],
    );
    broker_refused("{board: rpi3}", &["unknown field \"board\" of the spec of Broker"]);
}

// --- BrokerBridge

fn bridge(spec: &str) -> String {
    format!("apiVersion: portcullis.edge/v1\nkind: BrokerBridge\nmetadata: {{name: cloud}}\nspec: {spec}\n")
}

#[track_caller]
fn bridge_refused(spec: &str, expected: &[&str]) {
    refused(&[PLAIN, ("c.yaml", &bridge(spec))], expected);
}

#[test]
fn a_bridge_needs_somewhere_to_go_and_something_to_carry() {
    bridge_refused("{}", &["c.yaml:4:7: error: the field \"remote\" of the spec of BrokerBridge is missing"]);
    bridge_refused(
        "{remote: {hosts: [], clientId: g}, out: [{local: a, remote: b}]}",
        &["remote.hosts is empty: a bridge needs somewhere to go"],
    );
    bridge_refused(
        "{remote: {hosts: [upstream], clientId: g}}",
        &["a bridge needs out, in, or both: else nothing crosses it"],
    );
    bridge_refused(
        "{remote: {host: upstream}, out: [{local: a, remote: b}]}",
        &["unknown field \"host\" of remote; did you mean \"hosts\"?", "the field \"clientId\" of remote is missing"],
    );
}

#[test]
fn what_a_bridge_is_configured_with_must_be_possible() {
    let with = |remote: &str, more: &str| {
        format!("{{remote: {{hosts: [upstream], clientId: g{remote}}}, out: [{{local: a, remote: b}}]{more}}}")
    };
    for (remote, more, expected) in [
        (", keepAliveSeconds: 4", "", "keepAliveSeconds is 4, outside 5 to 3600"),
        (", maxPacketSizeBytes: 10", "", "maxPacketSizeBytes is 10, outside 1024 to 1048576"),
        (", auth: {x509: {secretRef: s}}", "", "a certificate is shown within TLS: add tls to remote"),
        (", tls: {caCertConfigMap: nobody}", "", "there is no ConfigMap named \"nobody\""),
        (", tls: {serverName: \"a b\"}", "", "the serverName \"a b\" is neither a DNS name nor an IP address"),
        ("", ", authorizationRef: nobody", "there is no BrokerAuthorization named \"nobody\""),
        ("", ", maxHops: 0", "maxHops is 0, outside 1 to 16"),
        ("", ", backoff: {minSeconds: 9, maxSeconds: 3}", "minSeconds of backoff is more than maxSeconds"),
        ("", ", queueLimit: {strategy: None}", "queueLimit.strategy"),
        ("", ", queueLimit: {length: 4000000}", "queueLimit.length of all bridges together is 4000000"),
        ("", ", queueLimit: {bytes: 999999999999}", "queueLimit.bytes of all bridges together is 999999999999"),
    ] {
        bridge_refused(&with(remote, more), &[expected]);
    }
    for host in ["", "a b", "a:0", "a:99999", "a/b", "user@a", "[::1"] {
        let spec = format!("{{remote: {{hosts: [\"{host}\"], clientId: g}}, out: [{{local: a, remote: b}}]}}");
        bridge_refused(&spec, &["is no host: host, host:port, or [address]:port is"]);
    }
    let spec = format!("{{remote: {{hosts: [a], clientId: {}}}, out: [{{local: a, remote: b}}]}}", "g".repeat(65));
    bridge_refused(&spec, &["a clientId has at most 64 bytes"]);
}

#[test]
fn both_sides_of_a_topic_map_have_the_same_wildcards() {
    let maps = |map: &str| format!("{{remote: {{hosts: [upstream], clientId: g}}, out: [{map}]}}");
    for map in [
        "{local: \"a/#\", remote: b}",
        "{local: \"a/+\", remote: \"b/#\"}",
        "{local: \"a/+/#\", remote: \"b/+/+\"}",
        "{local: a, remote: \"+\"}",
    ] {
        bridge_refused(&maps(map), &["need the same wildcards in the same order"]);
    }
    bridge_refused(&maps("{local: \"a/#/b\", remote: \"a/#/b\"}"), &["is no topic filter"]);
    bridge_refused(&maps("{local: \"$share/g/a\", remote: b}"), &["cannot take part in a shared subscription"]);
    bridge_refused(&maps("{local: a, remote: b, qos: 2}"), &["qos is 2, outside 0 to 1"]);
}

#[test]
fn two_bridges_are_two_clients_of_their_upstream() {
    let one = bridge("{remote: {hosts: [a], clientId: g}, out: [{local: a, remote: b}]}");
    let other = one.replace("cloud", "other");
    refused(
        &[PLAIN, ("c.yaml", &one), ("d.yaml", &other)],
        &["d.yaml:3:18: error: another bridge has the clientId \"g\" too"],
    );
    let password = bridge(
        "{remote: {hosts: [a], clientId: g, auth: {usernamePassword: {username: u, secretRef: s}}}, out: [{local: a, remote: b}]}",
    );
    noted(&[PLAIN, ("c.yaml", &password)], "the password can be read on the network");
}

#[test]
fn what_may_surprise_about_a_bridge_is_noted() {
    let with =
        |maps: &str| bridge(&format!("{{remote: {{hosts: [a], clientId: g, maxPacketSizeBytes: 1024}}, {maps}}}"));
    for (maps, expected) in [
        ("out: [{local: a, remote: b}]", "note: the bridge has no authorizationRef"),
        ("out: [{local: a, remote: b}]", "note: maxPacketSizeBytes of the bridge is 1024"),
        (
            "in: [{local: a, remote: b}, {local: c, remote: b}]",
            "note: a second map of \"b\" has no effect: the first decides",
        ),
        (
            "out: [{local: \"a/#\", remote: \"b/#\"}], in: [{local: \"+/x\", remote: \"+/x\"}]",
            "note: out \"a/#\" and in \"+/x\" have topics in common",
        ),
    ] {
        noted(&[PLAIN, ("c.yaml", &with(maps))], expected);
    }
    bridge_refused(
        "{remote: {hosts: [a], clientId: g}, in: [{local: $SYS/x, remote: x}]}",
        &["topics that begin with $ are this broker's own"],
    );
}
