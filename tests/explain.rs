//! `explain`, `diff` and `test`: answers to "why?", from the executable. Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::config::TUTORIAL_FILES;
use portcullis::pki;
use std::fs;
use support::{Folder, run};

/// The repository's layout: `config/tutorial` with its test file, and `demo` with the certificates of `portcullis demo`.
fn tutorial(name: &str) -> Folder {
    let folder = Folder::new(name);
    for (path, text) in TUTORIAL_FILES {
        folder.write(path, text);
    }
    folder.write("config/tutorial/tutorial.test.yaml", include_str!("../config/tutorial/tutorial.test.yaml"));
    pki::demo::create(&folder.join("demo")).unwrap();
    let authority = fs::read(folder.join("demo/fabrikam_root_ca.crt")).unwrap();
    folder.write("config/tutorial/trust/fabrikam-ca/client_ca.pem", authority);
    folder
}

/// A site whose clients show user name and password, with these rules.
fn site(folder: &Folder, name: &str, rules: &str) -> String {
    let listener = support::plain_listener(1883) + "      authenticationRef: logins\n      authorizationRef: rules\n";
    folder.write(&format!("{name}/listener.yaml"), listener);
    let authentication = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\n\
                          metadata: {name: logins}\nspec:\n  authenticationMethods:\n  \
                          - {method: UsernamePassword, usernamePasswordSettings: {secretRef: users}}\n";
    folder.write(&format!("{name}/logins.yaml"), authentication);
    folder.write(&format!("{name}/rules.authorization.yaml"), rules);
    folder.join(name).to_str().unwrap().to_owned()
}

/// Runs a command: exit code, standard output, standard error.
fn told(arguments: &[&str]) -> (i32, String, String) {
    let output = run(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs `explain` and checks the exit code and that every part stands in the answer.
fn explains(arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let (found, output, errors) = told(&[&["explain"], arguments].concat());
    assert_eq!(found, code, "{arguments:?}\n{output}{errors}");
    assert!(output.starts_with(if code == 0 { "allowed" } else { "denied" }), "{output}");
    for part in parts {
        assert!(output.contains(part), "no {part:?} in\n{output}");
    }
    output
}

#[test]
fn scenarios_2_4_7_and_10_are_explained_with_rule_and_certificate() {
    let folder = tutorial("explain-tutorial");
    let site = folder.join("config/tutorial").to_str().unwrap().to_owned();
    let of = |client: &str| folder.join(&format!("demo/{client}.crt")).to_str().unwrap().to_owned();
    let rules = "abac-authz.authorization.json";
    let ask = |client: &str, action: &[&str], code, parts: &[&str]| {
        let certificate = of(client);
        explains(&[&[site.as_str(), "--certificate", certificate.as_str()], action].concat(), code, parts)
    };
    let first = format!("{rules}:2");
    ask(
        "thermostat",
        &["publish", "telemetry/temperature"],
        0,
        &["rule ", &first, "by entry 'thermostat' for CN = thermostat"],
    );
    // 2
    let wrong_group = "attribute 'group' is 'thermostat_group', and the rule wants 'hygrometer_group'";
    let other_level = "differs in level 2: 'humidity' instead of 'temperature'";
    ask("thermostat", &["publish", "telemetry/humidity"], 1, &[wrong_group, other_level, "nearest rule"]);
    // 4
    let publishes = "the rule allows Publish of this, and not Subscribe";
    ask("heater", &["subscribe", "health/heartbeat"], 1, &[publishes, "by entry 'intermediate'"]);
    // 7
    ask(
        "thermostat",
        &["publish", "health/heartbeat"],
        1,
        &["the client has no attribute 'manufacturer'", "'fabrikam'"],
    );
    // 10
    for filter in ["telemetry/+", "telemetry/#"] {
        let more = format!("the rule allows 'telemetry/temperature', and '{filter}' asks for more");
        ask("heater", &["subscribe", filter], 1, &[&more]);
    }
    ask("heater", &["subscribe", "#"], 1, &["asks for more"]);
    ask("heater", &["subscribe", "$share/g/telemetry/humidity"], 0, &[rules]);
    ask("heater", &["subscribe", "a/#/b"], 1, &["not a Topic Filter"]);
    ask("heater", &["publish", "$SYS/x"], 1, &["the broker's own"]);
    ask("heater", &["publish", "a/+"], 1, &["not a Topic Name"]);
    ask("heater", &["publish", &"a/".repeat(200)], 1, &["more than 128 levels"]);
    let table = ask("heater", &[], 0, &["Connect ", "Publish   health/heartbeat", "Subscribe telemetry/humidity"]);
    assert!(!table.contains("Publish   telemetry"), "{table}");
    ask("heater", &["publish", "anything", "--port", "8884"], 0, &["no authorizationRef"]);
}

#[test]
fn a_refused_chain_is_the_answer() {
    let folder = tutorial("explain-refused");
    let site = folder.join("config/tutorial").to_str().unwrap().to_owned();
    let of = |file: &str| folder.join(&format!("demo/{file}")).to_str().unwrap().to_owned();
    let (stranger, heater) = (of("mqtts-endpoint.crt"), of("heater.crt"));
    let asked = [site.as_str(), "--certificate", stranger.as_str(), "publish", "x"];
    explains(&asked, 1, &["denied: refused at authentication: unknown authority"]);
    let late = [site.as_str(), "--certificate", heater.as_str(), "--at", "2090-01-01T00:00:00Z", "connect"];
    explains(&late, 1, &["refused at authentication: certificate expired at"]);
    // What cannot be read is no denial.
    let key = of("heater.key");
    let (code, _, errors) = told(&["explain", &site, "--certificate", &key, "connect"]);
    assert_eq!((code, errors.contains("no certificate in PEM")), (4, true), "{errors}");
    assert!(!errors.contains("PRIVATE"));
}

#[test]
fn what_cannot_be_answered_is_neither_allowed_nor_denied() {
    let folder = tutorial("explain-unanswered");
    let text = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (tutorial, heater) = (text("config/tutorial"), text("demo/heater.crt"));
    let of = |arguments: &[&str]| told(&[&["explain"], arguments].concat());
    let (code, output, errors) = of(&[&tutorial, "--port", "1", "--username", "u"]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(errors.contains("there is no port 1; ports are 8883, 8884"), "{errors}");
    // Who would be asked about a credential is not asked.
    let site = site(&folder, "site", "[{principals: {usernames: [u]}, brokerResources: [{method: Connect}]}]");
    let authentication = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\n\
                          metadata: {name: logins}\nspec:\n  authenticationMethods:\n  \
                          - {method: Custom, customSettings: {endpoint: 'https://localhost:1'}}\n";
    folder.write("site/logins.yaml", authentication);
    let (code, output, errors) = of(&[&site, "--certificate", &heater, "connect"]);
    assert_eq!((code, output.as_str()), (4, ""), "{errors}");
    assert!(errors.contains("a server would be asked"), "{errors}");
    explains(&[&site, "--username", "u", "connect"], 0, &["assumed: no credential was judged"]);
    // Two ports with rules: which one?
    let both = "    - port: 1884\n      authenticationRef: logins\n      authorizationRef: rules\n";
    let listener = fs::read_to_string(folder.join("site/listener.yaml")).unwrap();
    folder.write("site/listener.yaml", listener + both);
    let (code, _, errors) = of(&[&site, "--username", "u"]);
    assert_eq!((code, errors.contains("--port with one of 1883, 1884")), (2, true), "{errors}");
}

#[test]
fn a_blob_and_its_sources_give_the_same_answer_and_json_keeps_its_names() {
    let folder = tutorial("explain-blob");
    let text = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (site, blob, heater) = (text("config/tutorial"), text("site.blob"), text("demo/heater.crt"));
    assert_eq!(told(&["bake", &site, "--out", &blob]).0, 0);
    for action in [&["subscribe", "telemetry/+"][..], &["connect"], &[]] {
        let ask = |source: &str| told(&[&["explain", source, "--certificate", &heater, "--json"], action].concat());
        assert_eq!(ask(&site), ask(&blob));
    }
    let (_, json, _) = told(&["explain", &blob, "--certificate", &heater, "--json", "subscribe", "telemetry/+"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&value["decision"], &value["action"]), (&"denied".into(), &"subscribe".into()));
    assert_eq!((&value["resource"], &value["port"]), (&"telemetry/+".into(), &8883.into()));
    assert_eq!((&value["listener"], &value["authorization"]), (&"mqtts-endpoint".into(), &"abac-authz".into()));
    let identity = &value["identity"];
    assert_eq!((&identity["username"], &identity["clientId"]), (&"heater".into(), &"heater".into()));
    assert_eq!(identity["attributes"]["manufacturer"], "fabrikam");
    assert_eq!(identity["attributesFrom"]["subject"], "CN = Fabrikam Intermediate CA 1");
    assert_eq!((identity["certificates"].as_array().unwrap().len(), &identity["assumed"]), (3, &false.into()));
    assert!(value["rule"].is_null() && value["reason"].is_string());
    assert!(value["nearest"][0]["rule"].as_str().unwrap().contains("abac-authz.authorization.json:"));
    let (_, json, _) = told(&["explain", &blob, "--certificate", &heater, "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["grants"].as_array().unwrap().len(), 5, "{json}");
    assert_eq!(value["grants"][2]["method"], "Publish");
}

#[test]
fn scenarios_43_44_45_and_49_are_explained_with_their_tokens() {
    let folder = Folder::new("explain-tokens");
    let rules = r##"
- principals: {attributes: [{building: building22}, {building: building23}]}
  brokerResources:
    - {method: Connect, clientIds: ["{principal.attributes.building}*"]}
    - {method: Publish, topics: ["sensors/{principal.attributes.building}/{principal.clientId}/sensor"]}
- principals: {usernames: ["{principal.clientId}"]}
  brokerResources: [{method: Connect}]
- principals: {usernames: [walker]}
  brokerResources:
    - {method: Connect}
    - {method: Subscribe, topics: ["clients/{principal.clientId}/#"]}
    - {method: Publish, topics: ["{principal.attributes.org}/x"]}
"##;
    let site = site(&folder, "site", rules);
    let ask = |client: &[&str], action: &[&str], code, parts: &[&str]| {
        explains(&[&[site.as_str()], client, action].concat(), code, parts)
    };
    // 43
    let building = |id| ["--attribute", "building=building22", "--client-id", id];
    ask(&building("building22-7"), &["connect"], 0, &["assumed", "rules.authorization.yaml:2"]);
    let refused = "the rule allows to connect as 'building22*', which is not the client id";
    ask(&building("building23-7"), &["connect"], 1, &[refused]);
    ask(&building("x"), &["publish", "y"], 1, &["it may not even connect"]);
    ask(&building("building22-7"), &["publish", "sensors/building22/building22-7/sensor"], 0, &[]);
    let elsewhere = "differs in level 2: 'building23' instead of 'building22'";
    ask(&building("building22-7"), &["publish", "sensors/building23/building22-7/sensor"], 1, &[elsewhere]);
    // 44
    ask(&["--username", "a", "--client-id", "a"], &["connect"], 0, &["rules.authorization.yaml:6"]);
    ask(&["--username", "a", "--client-id", "b"], &["connect"], 1, &["the user name is 'a', and the rule wants 'b'"]);
    // 45
    for (id, filter) in [("+", "clients/+/x"), ("#", "clients/#"), ("a/b", "clients/a/b/x")] {
        let leaks = format!("{{principal.clientId}}: the value '{id}' is not one level of a topic");
        ask(&["--username", "walker", "--client-id", id], &["subscribe", filter], 1, &[&leaks]);
    }
    // 49
    let lacks = "{principal.attributes.org}: the client has no attribute 'org'";
    ask(&["--username", "walker"], &["publish", "acme/x"], 1, &[lacks]);
    ask(&["--username", "Walker"], &["connect"], 0, &[]);
    ask(&["--username", "Walker"], &["subscribe", "clients/Walker/x"], 1, &["comparisons are case-sensitive"]);
    // What a client is called does not move the cursor of a terminal.
    let escaped = ask(&["--username", "w\u{1b}[2J"], &[], 0, &["user name 'w\\u{1b}[2J'"]);
    assert!(!escaped.contains('\u{1b}'));
}

#[test]
fn diff_says_who_gains_and_who_loses() {
    let folder = Folder::new("explain-diff");
    let old = site(
        &folder,
        "old",
        "- principals: {usernames: [heater], attributes: [{a: '1', b: '2'}]}\n  brokerResources:\n  \
         - {method: Connect}\n  - {method: Publish, topics: [a/b]}\n  - {method: Subscribe, topics: [s]}\n",
    );
    let new = site(
        &folder,
        "new",
        "- principals: {usernames: [heater]}\n  brokerResources:\n  - {method: Connect, clientIds: ['h*']}\n  \
         - {method: Publish, topics: [a/#]}\n- principals: {attributes: [{a: '1'}]}\n  brokerResources:\n  \
         - {method: Connect}\n  - {method: Publish, topics: [a/+]}\n  - {method: Subscribe, topics: [s]}\n",
    );
    assert_eq!(told(&["diff", &old, &old]), (0, "no difference\n".to_owned(), String::new()));
    let (code, output, _) = told(&["diff", &old, &new]);
    let lines: Vec<&str> = output.lines().map(|line| line.split("  (").next().unwrap()).collect();
    assert_eq!(code, 1);
    assert_eq!(
        lines,
        [
            "+ port 1883: user 'heater' may now publish 'a/#'",
            "+ port 1883: attributes {a=1} may now connect",
            "+ port 1883: attributes {a=1} may now publish 'a/+'",
            "+ port 1883: attributes {a=1} may now subscribe 's'",
            "- port 1883: user 'heater' may no longer connect",
            "- port 1883: user 'heater' may no longer subscribe 's'",
        ],
        "who has a and b has a: nothing is lost"
    );
    assert!(output.contains("new/rules.authorization.yaml:1)") && output.contains("old/rules.authorization.yaml:1)"));
    let (_, json, _) = told(&["diff", &old, &new, "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first = &value["differences"][0];
    assert_eq!(
        (&value["different"], &first["change"], &first["kind"]),
        (&true.into(), &"gained".into(), &"grant".into())
    );
    assert_eq!((&first["method"], &first["pattern"]), (&"Publish".into(), &"a/#".into()));
    // A port without rules, and another method.
    let open = support::plain_listener(1883);
    folder.write("new/listener.yaml", open.clone() + "      authenticationRef: logins\n    - port: 1884\n");
    let (_, output, _) = told(&["diff", &old, &new]);
    assert!(output.contains("+ port 1884: authentication none, no authorization\n"), "{output}");
    assert!(output.contains("~ port 1883: no authorization any more"), "{output}");
    folder.write("new/listener.yaml", open);
    let (_, output, _) = told(&["diff", &old, &new]);
    assert!(output.contains("~ port 1883: authentication UsernamePassword is now none"), "{output}");
}

#[test]
fn the_tutorials_tests_pass_and_lie_among_its_manifests() {
    let folder = tutorial("explain-test");
    let text = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (site, file) = (text("config/tutorial"), text("config/tutorial/tutorial.test.yaml"));
    let (code, output, errors) = told(&["test", &file]);
    assert_eq!(code, 0, "{output}{errors}");
    assert!(output.ends_with("21 passed, 0 failed\n"), "{output}");
    let line = format!("pass  {file}:7 thermostat publish telemetry/temperature: allowed by ");
    assert!(output.contains(&line), "{output}");
    let (code, _, notes) = told(&["check", &site]);
    assert!(code == 0 && !notes.contains("tutorial.test.yaml"), "{notes}");
}

#[test]
fn a_test_that_fails_is_told_with_what_decided() {
    let folder = Folder::new("explain-fail");
    let rules =
        "- principals: {usernames: [u]}\n  brokerResources: [{method: Connect}, {method: Publish, topics: [t]}]\n";
    let site = site(&folder, "site", rules);
    let tests = "tests:\n- client: {username: u}\n  allowed: [connect, publish x]\n- name: strict\n  \
                 client: {username: u}\n  action: publish\n  resource: t\n  expect: denied\n";
    let file = folder.write("a.test.yaml", tests).to_str().unwrap().to_owned();
    let (code, output, _) = told(&["test", &file, "--config", &site]);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((code, lines.len()), (1, 4), "{output}");
    assert!(lines[0].starts_with("pass "));
    assert!(lines[1].starts_with("FAIL ") && lines[1].contains("a.test.yaml:3 u publish x: denied"), "{output}");
    assert!(lines[1].ends_with("; expected allowed"), "{output}");
    assert!(lines[2].contains("strict publish t: allowed by") && lines[2].ends_with("; expected denied"), "{output}");
    assert_eq!(lines[3], "1 passed, 2 failed");
    let (code, _, errors) = told(&["test", &file]);
    assert_eq!((code, errors.contains("--config")), (2, true), "{errors}");
}

#[test]
fn mistakes_of_a_test_file_have_their_place() {
    let folder = Folder::new("explain-mistakes");
    let tests = "tests:\n- client: {}\n  allowed: [connect]\n- client: {usrname: u, clientId: c}\n  denied: [read x]\n\
                 - client: {clientId: c}\n  action: publish\n  expect: alowed\n";
    let file = folder.write("a.test.yaml", tests).to_str().unwrap().to_owned();
    let (code, output, errors) = told(&["test", &file]);
    assert_eq!((code, output.as_str()), (3, ""), "{errors}");
    for part in [
        "a.test.yaml:2:11: error: the client is nobody",
        "a.test.yaml:4:12: error: unknown field \"usrname\" of client; did you mean \"username\"?",
        "a.test.yaml:5:12: error: \"read\" is none of connect, publish and subscribe",
        "a.test.yaml:7:11: error: publish needs a topic",
        "a.test.yaml:8:11: error: expect must be one of",
    ] {
        assert!(errors.contains(part), "no {part:?} in\n{errors}");
    }
}

#[test]
fn diff_says_what_changes_about_bridges() {
    let folder = Folder::new("diff-bridges");
    let write = |name: &str, bridges: &[&str]| {
        let site =
            site(&folder, name, "- principals: {usernames: [cloud]}\n  brokerResources:\n  - {method: Connect}\n");
        let head = "apiVersion: portcullis.edge/v1\nkind: BrokerBridge\nmetadata: ";
        let bridges: Vec<String> = bridges.iter().map(|bridge| format!("{head}{bridge}\n")).collect();
        folder.write(&format!("{name}/bridges.yaml"), bridges.join("---\n"));
        site
    };
    let bridge = |name: &str, rest: &str| {
        format!("{{name: {name}}}\nspec:\n  remote: {{hosts: ['a:1883'], clientId: {name}}}\n{rest}")
    };
    let out = "  out: [{local: s/#, remote: x/s/#}, {local: t/#, remote: x/t/#}]\n";
    let old = write(
        "old",
        &[
            &bridge("stays", out),
            &bridge("goes", out),
            &bridge("changes", &format!("  identity: {{username: cloud}}\n  authorizationRef: rules\n{out}")),
        ],
    );
    let new = write(
        "new",
        &[
            &bridge("stays", out),
            &bridge("comes", out),
            "{name: changes}\nspec:\n  remote: {hosts: ['b:1883'], clientId: changes}\n  out: [{local: t/#, remote: x/t/#}, {local: u/#, \
         remote: x/u/#}]\n  queueLimit: {length: 7}",
        ],
    );
    let (code, output, error) = told(&["diff", &old, &new]);
    assert_eq!(code, 1, "{error}");
    let lines: Vec<&str> = output.lines().filter(|line| line.contains("bridge")).collect();
    assert_eq!(
        lines,
        [
            "+ bridge comes: to a:1883, may do everything, 2 maps out and 0 in",
            "~ bridge changes: may do everything, before: authorization rules",
            "~ bridge changes: its username or attributes, which rules go by",
            "+ bridge changes: out u/# \u{2194} x/u/#, QoS 1, retained",
            "- bridge changes: out s/# \u{2194} x/s/#, QoS 1, retained",
            "~ bridge changes: its upstream or how it shows itself there: b:1883",
            "~ bridge changes: its queueLimit, maxHops or backoff",
            "- bridge goes: with what waits for it",
        ]
    );
    assert_eq!(told(&["diff", &new, &new]).1, "no difference\n");
}
