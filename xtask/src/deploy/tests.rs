//! Deploys to a folder: `ssh` is a script that runs the command here, and what it finds on its search path is made up: a package is a
//! file with its version in it, and versions with `bad` in their names are never well.

use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

/// Programs of the gateway. `$ROOT` is put before them.
const PROGRAMS: [(&str, &str); 10] = [
    ("id", "echo ${AS-$(cat $ROOT/user)}"),
    ("sudo", "[ \"$1\" = -n ] && [ -f $ROOT/trusted ] || exit 1\nshift\necho \"$1\" >>$ROOT/sudo\nAS=0 exec \"$@\""),
    (
        "dpkg",
        "for last; do :; done\ncase $1 in -r) rm -f $ROOT/installed ;; --print-architecture) echo arm64 ;; *) cp \"$last\" $ROOT/installed ;; esac",
    ),
    (
        "dpkg-query",
        "[ -f $ROOT/installed ] || exit 1\ncase $1 in -W) echo \"$(cat $ROOT/state) $(cat $ROOT/installed)\" ;; esac",
    ),
    (
        "dpkg-deb",
        "case $1 in -x) mkdir -p \"$3/usr/bin\"; cp $ROOT/bin/portcullis \"$3/usr/bin\" ;; -f) cat \"$2\" ;; --root-owner-group) cp $ROOT/installed \"$4\" ;; esac",
    ),
    ("systemctl", "echo \"$1\" >>$ROOT/systemctl"),
    (
        "portcullis",
        "case $1 in health) ! grep -q bad $ROOT/installed && ! grep -rqs stuck $ROOT/etc/portcullis ;; esac",
    ),
    ("sleep", ":"),
    ("sync", ":"),
    ("ssh", "for last; do :; done\nPATH=$ROOT/bin:$PATH exec sh -c \"$last\""),
];

/// A gateway in a folder, which goes away with this value.
struct Gateway(PathBuf);

impl Gateway {
    fn new(name: &str, installed: Option<&str>) -> Self {
        let root = std::env::temp_dir().join(format!("portcullis-deploy-{name}-{}", std::process::id()));
        workspace::remove_folder(&root).unwrap();
        for folder in ["bin", "etc/portcullis/secrets", "var/lib"] {
            workspace::make_folder(&root.join(folder)).unwrap();
        }
        for (program, text) in PROGRAMS {
            let path = root.join("bin").join(program);
            workspace::write(&path, &format!("#!/bin/sh\nROOT={}\n{text}\n", root.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if let Some(version) = installed {
            workspace::write(&root.join("installed"), version).unwrap();
        }
        workspace::write(&root.join("user"), "0").unwrap();
        workspace::write(&root.join("state"), "installed").unwrap();
        workspace::write(&root.join("etc/portcullis/listener.yaml"), "former").unwrap();
        workspace::write(&root.join("etc/portcullis/secrets/key"), "key").unwrap();
        Self(root)
    }

    /// Sends a version, and sources of one file if there are any.
    fn deploy(&self, version: &str, sources: Option<&str>) -> Outcome {
        let sent = self.0.join("sent");
        workspace::make_folder(&sent.join("sources")).unwrap();
        workspace::write(&sent.join("new.deb"), version).unwrap();
        let mut parts = vec!["new.deb"];
        if let Some(text) = sources {
            workspace::write(&sent.join("sources/listener.yaml"), text).unwrap();
            parts.push("sources");
        }
        let archive = self.0.join("sent.tar");
        process::run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&sent).args(parts)).unwrap();
        install(&self.options(), &archive)
    }

    fn options(&self) -> Options {
        let mut options = parse(vec!["gateway".into(), "--seconds".into(), "2".into()]).unwrap().unwrap();
        options.ssh = self.0.join("bin/ssh");
        options.root = self.0.display().to_string();
        options
    }

    /// From now on it is not root who logs in, but somebody who may use sudo without a password, or may not.
    fn log_in_as_user(&self, is_trusted: bool) {
        workspace::write(&self.0.join("user"), "1000").unwrap();
        if is_trusted {
            workspace::write(&self.0.join("trusted"), "").unwrap();
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(outcome: &Outcome) -> String {
    outcome.as_ref().err().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_version_that_is_well_stays_and_the_one_before_is_kept() {
    let gateway = Gateway::new("well", Some("1"));
    gateway.deploy("2", None).unwrap();
    gateway.deploy("3", None).unwrap();
    assert_eq!(gateway.read("installed"), "3");
    assert_eq!(gateway.read("var/lib/portcullis-deploy/current.deb"), "3");
    assert_eq!(gateway.read("var/lib/portcullis-deploy/previous.deb"), "2");
}

#[test]
fn a_version_that_is_not_well_gives_way_to_the_one_before_with_its_configuration() {
    let gateway = Gateway::new("bad", Some("1"));
    assert!(said(&gateway.deploy("2-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "1");
    assert!(said(&gateway.deploy("2", Some("stuck"))).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "1");
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "former");
    assert_eq!(gateway.read("etc/portcullis/secrets/key"), "key");
    gateway.deploy("2", Some("next")).unwrap();
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "next");
    assert_eq!(gateway.read("etc/portcullis/secrets/key"), "key");
}

#[test]
fn a_first_version_that_is_not_well_is_removed_again() {
    let gateway = Gateway::new("first", None);
    assert!(said(&gateway.deploy("1-bad", None)).contains("not well either"));
    assert_eq!(gateway.read("installed"), "");
    gateway.deploy("1", None).unwrap();
    assert_eq!(gateway.read("installed"), "1");
}

#[test]
fn while_one_deploy_goes_on_another_changes_nothing() {
    let gateway = Gateway::new("two", Some("1"));
    workspace::make_folder(&gateway.0.join("run")).unwrap();
    let mut holder = Command::new("flock");
    holder.arg(gateway.0.join("run/portcullis-deploy")).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    writeln!(input, "held").unwrap();
    let mut answer = [0; 4];
    holder.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert!(said(&gateway.deploy("2", None)).contains("nothing was changed"));
    assert_eq!(gateway.read("installed"), "1");
    drop(input);
    holder.wait().unwrap();
    gateway.deploy("2", None).unwrap();
    assert_eq!(gateway.read("installed"), "2");
}

#[test]
fn where_dpkg_was_interrupted_it_goes_back_to_what_was_well_last() {
    let gateway = Gateway::new("interrupted", Some("1"));
    workspace::write(&gateway.0.join("state"), "half-configured").unwrap();
    assert_eq!(Answers::ask(&gateway.options()).unwrap().version.as_deref(), Some("half-configured 1"));
    // Which was that?
    assert!(said(&gateway.deploy("3-bad", None)).contains("nothing was changed"));
    workspace::write(&gateway.0.join("var/lib/portcullis-deploy/current.deb"), "0").unwrap();
    assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "0");
}

#[test]
fn what_the_gateway_says_is_kept_there() {
    let gateway = Gateway::new("told", Some("1"));
    gateway.deploy("2", None).unwrap();
    assert!(gateway.read("var/lib/portcullis-deploy/said").contains("gateway: 2 is well"));
}

#[test]
fn root_needs_no_sudo() {
    let gateway = Gateway::new("root", Some("1"));
    gateway.deploy("2", None).unwrap();
    assert_eq!((gateway.read("installed"), gateway.read("sudo")), ("2".to_owned(), String::new()));
}

#[test]
fn a_user_deploys_through_sudo_and_back() {
    let gateway = Gateway::new("user", Some("1"));
    gateway.log_in_as_user(true);
    gateway.deploy("2", Some("it's \"next\"")).unwrap();
    assert_eq!(gateway.read("installed"), "2");
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "it's \"next\"");
    assert_eq!(gateway.read("sudo"), "sh\nsh\n");
    assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "2");
}

#[test]
fn a_user_who_may_not_become_root_changes_nothing() {
    let gateway = Gateway::new("stranger", Some("1"));
    gateway.log_in_as_user(false);
    assert!(said(&gateway.deploy("2", None)).contains("nothing was changed"));
    assert_eq!(gateway.read("installed"), "1");
    assert!(!gateway.0.join("var/lib/portcullis-deploy").exists());
}

#[test]
fn a_gateway_is_asked_what_it_has_and_whether_it_can_be_changed() {
    let gateway = Gateway::new("asked", Some("1"));
    let answers = |version: Option<&str>, allows_root| Answers {
        architecture: "arm64".to_owned(),
        version: version.map(str::to_owned),
        allows_root,
    };
    let asked = |gateway: &Gateway| Answers::ask(&gateway.options()).unwrap();
    assert_eq!(asked(&gateway), answers(Some("1"), true));
    gateway.log_in_as_user(false);
    assert_eq!(asked(&gateway), answers(Some("1"), false));
    gateway.log_in_as_user(true);
    fs::remove_file(gateway.0.join("installed")).unwrap();
    assert_eq!(asked(&gateway), answers(None, true));
}

#[test]
fn a_host_is_needed_and_is_no_option() {
    assert!(parse(vec![]).is_err());
    assert!(parse(vec!["--".into(), "-oProxyCommand=x".into()]).is_err());
    let options = parse(vec!["pi@gateway".into(), "--dry-run".into()]).unwrap().unwrap();
    assert!(options.dry_run && options.host == "pi@gateway" && options.seconds == 60);
}
