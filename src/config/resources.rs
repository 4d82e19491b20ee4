//! Documents into resources: `apiVersion`, `kind` and `metadata` of manifests, bare bodies, and folders of entries.

use super::authentication::{self, Authentication};
use super::authorization;
use super::blob;
use super::bridge::{self, BridgeSource};
use super::broker::{self, Broker};
use super::diagnostic::{Place, Report, nearest, quoted};
use super::gateway::{self, Settings};
use super::listener::{self, Listener};
use super::name;
use super::secret::decode_base64;
use super::source::files::{BareKind, EntryFile, Found, Manifest};
use super::source::walk::{Fields, boolean, full_text, sequence, text, text_map};
use super::source::{self, Node, Value};
use std::collections::BTreeMap;

const VENDOR: &str = "mqttbroker.iotoperations.azure.com/v1";
const VENDOR_BETA: &str = "mqttbroker.iotoperations.azure.com/v1beta1";
const OWN: &str = "portcullis.edge/v1";
const CORE: &str = "v1";

/// Kinds, and the `apiVersion` that each needs.
const KINDS: [(&str, &[&str]); 9] = [
    ("Broker", &[VENDOR, VENDOR_BETA]),
    ("BrokerListener", &[VENDOR, VENDOR_BETA]),
    ("BrokerAuthentication", &[VENDOR, VENDOR_BETA]),
    ("BrokerAuthorization", &[VENDOR, VENDOR_BETA]),
    ("BrokerBridge", &[OWN]),
    ("ConfigMap", &[CORE]),
    ("Secret", &[CORE]),
    ("List", &[CORE]),
    ("Gateway", &[OWN]),
];

/// A resource with its name.
pub struct Named<T> {
    /// `metadata.name`.
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    /// The rest.
    pub body: T,
}

/// The text of one entry of a ConfigMap or Secret, and where it comes from. Never shown: it may be a key.
pub struct Entry {
    /// The text.
    pub contents: Vec<u8>,
    /// Where it begins.
    pub place: Place,
    /// Whether it is a file of its own, so that lines can be counted from its start.
    pub is_file: bool,
}

impl Entry {
    /// Where PEM section `index` begins, as near as can be told.
    #[must_use]
    pub fn place_of_section(&self, index: usize) -> Place {
        let mut place = self.place.clone();
        if self.is_file {
            let begins = |(_, line): &(usize, &[u8])| line.starts_with(b"-----BEGIN ");
            let line =
                self.contents.split(|byte| *byte == b'\n').enumerate().filter(begins).nth(index).map(|(line, _)| line);
            place.line = line.and_then(|line| u32::try_from(line + 1).ok()).unwrap_or(1);
        }
        place
    }
}

/// A ConfigMap: keys and texts.
#[derive(Default)]
pub struct ConfigMap {
    /// `data`, or the files of the folder.
    pub entries: Vec<(String, Entry)>,
}

/// A Secret.
#[derive(Default)]
pub struct SecretSource {
    /// `type` where it is not `kubernetes.io/tls`.
    pub foreign_type: Option<(String, Place)>,
    /// `tls.crt`.
    pub certificate_chain: Option<Entry>,
    /// `tls.key`.
    pub private_key: Option<Entry>,
    /// Whether it comes from a folder, which the gateway may read itself.
    pub is_folder: bool,
}

/// Everything that was read.
#[derive(Default)]
pub struct Resources {
    /// `kind: Broker`.
    pub brokers: Vec<Named<Broker>>,
    /// `kind: BrokerListener`.
    pub listeners: Vec<Named<Listener>>,
    /// `kind: BrokerAuthentication`.
    pub authentications: Vec<Named<Authentication>>,
    /// `kind: BrokerAuthorization`.
    pub authorizations: Vec<Named<blob::Authorization>>,
    /// `kind: BrokerBridge`.
    pub bridges: Vec<Named<BridgeSource>>,
    /// `kind: ConfigMap`.
    pub config_maps: Vec<Named<ConfigMap>>,
    /// `kind: Secret`.
    pub secrets: Vec<Named<SecretSource>>,
    /// `kind: Gateway`.
    pub gateways: Vec<Named<Settings>>,
    /// Names of resources whose body has a mistake: they exist, and nobody should be told that they do not.
    pub broken: Vec<(&'static str, String)>,
}

impl Resources {
    /// Reads everything that was found.
    pub fn read(found: Found, report: &mut Report) -> Self {
        let mut resources = Self::default();
        for manifest in found.manifests {
            resources.manifest(&manifest, report);
        }
        resources.config_map_folders(found.config_maps, report);
        resources.secret_folders(found.secrets, report);
        resources
    }

    fn manifest(&mut self, manifest: &Manifest, report: &mut Report) {
        let path = &manifest.file.path;
        let documents = source::parse(path, &manifest.file.contents, manifest.syntax, report);
        for document in documents {
            let is_manifest = document.entry("apiVersion").is_some() || document.entry("kind").is_some();
            match &manifest.bare {
                Some((kind, name)) if !is_manifest => {
                    name::check(kind.resource(), name, &Place::start_of(path), report);
                    self.bare_body(*kind, name, &document, report);
                }
                Some(_) | None if is_manifest => self.document(&document, report),
                Some(_) | None => {
                    let forms = "<name>.listener.json, <name>.authentication.json, <name>.x509.json, <name>.authorization.json or <name>.broker.json";
                    report.error(
                        &document.place,
                        format!("neither apiVersion nor kind; a bare body needs a file name such as {forms}"),
                    );
                }
            }
        }
    }

    /// Reads one document, or the documents of a `List`; a list inside a list is refused, so this does not recurse.
    fn document(&mut self, document: &Node, report: &mut Report) {
        let Some((kind, mut fields)) = header(document, report) else { return };
        if kind != "List" {
            return self.resource(kind, fields, report);
        }
        fields.ignore(&["metadata"]);
        if let Some(items) = fields.required("items", report) {
            for item in sequence(items, "items", report).unwrap_or_default() {
                match header(item, report) {
                    Some(("List", _)) => report.error(&item.place, "a List inside a List"),
                    Some((kind, fields)) => self.resource(kind, fields, report),
                    None => {}
                }
            }
        }
        fields.finish(report);
    }

    fn resource(&mut self, kind: &'static str, mut fields: Fields<'_>, report: &mut Report) {
        let named = fields.required("metadata", report).and_then(|node| metadata(kind, node, report));
        let (name, place) = named.unwrap_or_else(|| (String::new(), fields.place().clone()));
        if kind == "ConfigMap" || kind == "Secret" {
            if kind == "ConfigMap" {
                let body = config_map(&mut fields, report);
                add(&mut self.config_maps, kind, &name, &place, body, report);
            } else {
                let body = secret(&mut fields, report);
                add(&mut self.secrets, kind, &name, &place, body, report);
            }
            return fields.finish(report);
        }
        fields.ignore(&["status"]);
        let spec = fields.required("spec", report);
        fields.finish(report);
        let Some(spec) = spec else { return self.broken.push((kind, name)) };
        self.spec(kind, &name, &place, spec, report);
    }

    fn spec(&mut self, kind: &'static str, name: &str, place: &Place, spec: &Node, report: &mut Report) {
        let read = match kind {
            "Broker" => broker::read(spec, report).map(|body| add(&mut self.brokers, kind, name, place, body, report)),
            "BrokerListener" => {
                listener::read(spec, report).map(|body| add(&mut self.listeners, kind, name, place, body, report))
            }
            "BrokerAuthentication" => authentication::read(spec, report)
                .map(|body| add(&mut self.authentications, kind, name, place, body, report)),
            "BrokerAuthorization" => authorization::read(name, spec, report)
                .map(|body| add(&mut self.authorizations, kind, name, place, body, report)),
            "BrokerBridge" => {
                bridge::read(name, spec, report).map(|body| add(&mut self.bridges, kind, name, place, body, report))
            }
            "Gateway" => gateway::read(spec, report).map(|body| {
                if name != "default" {
                    report.error(place, format!("a Gateway must be named \"default\", and this is {}", quoted(name)));
                }
                add(&mut self.gateways, kind, name, place, body, report);
            }),
            _ => None,
        };
        if read.is_none() {
            self.broken.push((kind, name.to_owned()));
        }
    }

    fn bare_body(&mut self, kind: BareKind, name: &str, body: &Node, report: &mut Report) {
        let resource = kind.resource();
        let place = &body.place;
        match kind {
            BareKind::Listener | BareKind::Broker => self.spec(resource, name, place, body, report),
            BareKind::Authentication if body.entry("authenticationMethods").is_some() => {
                self.spec(resource, name, place, body, report);
            }
            BareKind::Authentication => match authentication::read_bare(body, report) {
                Some(read) => add(&mut self.authentications, resource, name, place, read, report),
                None => self.broken.push((resource, name.to_owned())),
            },
            BareKind::Authorization => match authorization::read_bare(name, body, report) {
                Some(read) => add(&mut self.authorizations, resource, name, place, read, report),
                None => self.broken.push((resource, name.to_owned())),
            },
        }
    }

    fn config_map_folders(&mut self, files: Vec<EntryFile>, report: &mut Report) {
        for (place, name, files) in by_folder(files) {
            name::check("ConfigMap", &name, &place, report);
            let entries = files.into_iter().map(|file| (file.key.clone(), entry_of(file))).collect();
            add(&mut self.config_maps, "ConfigMap", &name, &place, ConfigMap { entries }, report);
        }
    }

    fn secret_folders(&mut self, files: Vec<EntryFile>, report: &mut Report) {
        for (place, name, files) in by_folder(files) {
            name::check("Secret", &name, &place, report);
            let mut body = SecretSource { is_folder: true, ..SecretSource::default() };
            for file in files {
                let is_key = file.key == "tls.key";
                let part = if is_key { &mut body.private_key } else { &mut body.certificate_chain };
                *part = Some(entry_of(file));
            }
            add(&mut self.secrets, "Secret", &name, &place, body, report);
        }
    }
}

impl BareKind {
    fn resource(self) -> &'static str {
        match self {
            Self::Authorization => "BrokerAuthorization",
            Self::Authentication => "BrokerAuthentication",
            Self::Listener => "BrokerListener",
            Self::Broker => "Broker",
        }
    }
}

fn entry_of(file: EntryFile) -> Entry {
    Entry { place: Place::start_of(&file.file.path), contents: file.file.contents, is_file: true }
}

/// The files of each folder, with the folder's place and name.
fn by_folder(files: Vec<EntryFile>) -> Vec<(Place, String, Vec<EntryFile>)> {
    let mut folders: BTreeMap<String, Vec<EntryFile>> = BTreeMap::new();
    for file in files {
        folders.entry(file.folder.clone()).or_default().push(file);
    }
    let named = folders.into_iter().filter_map(|(folder, files)| {
        let name = files.first()?.name.clone();
        Some((Place::start_of(&folder), name, files))
    });
    named.collect()
}

/// Adds a resource, unless one of its kind has the name already.
fn add<T>(list: &mut Vec<Named<T>>, kind: &str, name: &str, place: &Place, body: T, report: &mut Report) {
    if name.is_empty() {
        return;
    }
    if let Some(first) = list.iter().find(|known| known.name == name) {
        let message = format!("a second {kind} named {}; the first is at {}", quoted(name), first.place);
        return report.error(place, message);
    }
    list.push(Named { name: name.to_owned(), place: place.clone(), body });
}

/// Reads `apiVersion` and `kind`.
fn header<'a>(document: &'a Node, report: &mut Report) -> Option<(&'static str, Fields<'a>)> {
    let mut fields = Fields::of(document, "the manifest", report)?;
    let version_node = fields.required("apiVersion", report);
    let kind_node = fields.required("kind", report);
    let given = text(kind_node?, "kind", report)?;
    let version = version_node.and_then(|node| text(node, "apiVersion", report));
    let Some((kind, versions)) = KINDS.iter().find(|(kind, _)| *kind == given) else {
        let names = KINDS.iter().map(|(kind, _)| *kind);
        let end = nearest(given, names.clone()).map_or_else(
            || format!("; valid are {}", names.collect::<Vec<_>>().join(", ")),
            |name| format!("; did you mean \"{name}\"?"),
        );
        report.error(&kind_node?.place, format!("unknown kind {}{end}", quoted(given)));
        return None;
    };
    let version = version?;
    if !versions.contains(&version) {
        let expected = versions.first().copied().unwrap_or_default();
        report.error(
            &version_node?.place,
            format!("the apiVersion of {kind} is \"{expected}\", and this is {}", quoted(version)),
        );
    }
    Some((kind, fields))
}

/// Reads `metadata` and gives the name and its place.
fn metadata(kind: &str, node: &Node, report: &mut Report) -> Option<(String, Place)> {
    let mut fields = Fields::of(node, "metadata", report)?;
    fields.ignore(&[
        "namespace",
        "labels",
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    let name_node = fields.required("name", report);
    fields.finish(report);
    let name = full_text(name_node?, "metadata.name", report)?;
    let place = name_node?.place.clone();
    name::check(kind, name, &place, report);
    Some((name.to_owned(), place))
}

/// One value of `data`, either as it is or in base64. A value in base64 that cannot be decoded is not shown.
fn entry_value(value: &str, node: &Node, base64: bool, report: &mut Report) -> Option<Entry> {
    let contents = if base64 {
        let Some(contents) = decode_base64(value) else {
            report.error(&node.place, "the value is not base64");
            return None;
        };
        contents
    } else {
        value.as_bytes().to_vec()
    };
    Some(Entry { contents, place: node.place.clone(), is_file: false })
}

fn config_map(fields: &mut Fields<'_>, report: &mut Report) -> ConfigMap {
    let mut map = ConfigMap::default();
    if let Some(node) = fields.optional("immutable") {
        boolean(node, "immutable", report);
    }
    for (name, base64) in [("data", false), ("binaryData", true)] {
        let Some(node) = fields.optional(name) else { continue };
        for (key, value, node) in text_map(node, name, report).unwrap_or_default() {
            if let Some(entry) = entry_value(value, node, base64, report) {
                map.entries.push((key.text.clone(), entry));
            }
        }
    }
    map
}

fn secret(fields: &mut Fields<'_>, report: &mut Report) -> SecretSource {
    let mut secret = SecretSource::default();
    if let Some(node) = fields.optional("immutable") {
        boolean(node, "immutable", report);
    }
    if let Some(node) = fields.optional("type")
        && let Some(given) = text(node, "type", report)
        && given != "kubernetes.io/tls"
    {
        secret.foreign_type = Some((given.to_owned(), node.place.clone()));
    }
    // stringData comes second and wins, as in the vendor's cluster.
    for (name, base64) in [("data", true), ("stringData", false)] {
        let Some(node) = fields.optional(name) else { continue };
        let Value::Mapping(entries) = &node.value else {
            report.error(&node.place, format!("{name} must be a mapping"));
            continue;
        };
        for (key, node) in entries {
            // Not the usual reader: its message would show the value.
            let Value::Text(value) = &node.value else {
                report.error(&node.place, format!("the value of {} must be text", quoted(&key.text)));
                continue;
            };
            let part = match key.text.as_str() {
                "tls.crt" => &mut secret.certificate_chain,
                "tls.key" => &mut secret.private_key,
                _ => continue,
            };
            *part = entry_value(value, node, base64, report);
        }
    }
    secret
}
