//! A Debian of another machine in namespaces of its own.
//!
//! Everything that it does to the system is undone by leaving: users, mounts, processes and the network are private, and so is
//! what says that foreign programs run under the emulator (`binfmt_misc`, which since Linux 6.7 each user namespace has for itself).
//! Beside an unpacked Debian below the target folder nothing remains.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{install, workspace};

/// What it needs: Debian's package and a program in it.
const PACKAGES: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("iproute2", "ip")];
const EMULATORS: (&str, &str) = ("qemu-user-static", "qemu-aarch64-static");
/// Where the system keeps what must be said to `binfmt_misc`.
const FORMATS: &str = "/usr/lib/binfmt.d";

/// The first steps in the new namespaces: `$1` is the text for `binfmt_misc` or nothing, the rest a command.
const ENTER: &str = r#"
if [ -n "$1" ] && mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null; then
    cat "$1" >/proc/sys/fs/binfmt_misc/register
fi
shift
exec "$@"
"#;

/// What makes a chroot of an archive and runs the trial in it: `$1` the folder, `$2` the archive, then the trial and its packages.
const TRY: &str = r#"
set -e
ip link set lo up
root=$1 archive=$2
mkdir -p "$root"
mount -t tmpfs -o mode=755 none "$root"
tar -C "$root" --exclude='./dev/*' -xf "$archive"
shift 2
for node in null zero full random urandom; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t proc proc "$root/proc"
names=''
for file; do
    cp "$file" "$root/tmp/"
    names="$names /tmp/$(basename "$file")"
done
exec chroot "$root" /bin/sh $names
"#;

/// An unpacked Debian.
pub struct Chroot {
    archive: PathBuf,
    folder: PathBuf,
    format: Option<PathBuf>,
}

impl Chroot {
    /// The Debian of an architecture, fetched into `folder` where it is not there yet.
    pub fn of(architecture: &str, target: &Target, suite: &str, folder: &Path) -> Outcome<Self> {
        if process::capture(Command::new("id").arg("-u"))?.trim() != "0" {
            return Err(Failure::new("a chroot needs root"));
        }
        let mut wanted = PACKAGES.to_vec();
        wanted.extend(target.is_foreign().then_some(EMULATORS));
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|(_, program)| process::find(program).is_none())
            .map(|(package, _)| *package)
            .collect();
        install::packages(&missing)?;
        let format = target.runner.map(|runner| Path::new(FORMATS).join(format!("{runner}.conf")));
        // Beside the tests' folder, which each test begins anew.
        let archive = workspace::target_folder().join("debian").join(format!("{suite}-{architecture}.tar"));
        let chroot = Self { archive, folder: folder.join("chroot"), format };
        if !chroot.archive.is_file() {
            chroot.fetch(architecture, suite)?;
        }
        Ok(chroot)
    }

    fn fetch(&self, architecture: &str, suite: &str) -> Outcome {
        let partial = self.archive.with_extension("partial.tar");
        workspace::make_folder(self.archive.parent().unwrap_or(&self.folder))?;
        self.enter(
            Command::new("mmdebstrap")
                .args(["--mode=root", "--variant=minbase", "--aptopt=APT::Sandbox::User \"root\""])
                .arg(format!("--architectures={architecture}"))
                .arg(suite)
                .arg(&partial),
            false,
        )?;
        fs::rename(&partial, &self.archive).map_err(|error| Failure::file("move", &partial, &error))
    }

    /// Runs a script in a fresh copy, with copies of `packages` as its arguments.
    pub fn run(&self, script: &Path, packages: &[PathBuf]) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", TRY, "sh"]).arg(&self.folder).arg(&self.archive).arg(script).args(packages);
        self.enter(&command, true)
    }

    /// Runs a command as root of namespaces of its own: all users are who they are outside, but have power over nothing there.
    fn enter(&self, command: &Command, own_network: bool) -> Outcome {
        println!("$ {}", process::shown(command).lines().next().unwrap_or_default());
        let mut entered = Command::new("unshare");
        // The shell that waits has no capabilities, since nobody is root yet; the program it becomes has.
        let mut inner = "unshare --mount --pid --fork --kill-child --mount-proc".to_owned();
        inner.push_str(if own_network { " --net" } else { "" });
        entered
            .args(["--user", "sh", "-c"])
            .arg(format!("echo there; read -r go; exec {inner} sh -c \"$0\" sh \"$@\" </dev/null"));
        entered.arg(ENTER).arg(self.format.as_deref().unwrap_or(Path::new("")));
        entered.arg(command.get_program()).args(command.get_args());
        entered.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").env("PATH", path());
        let mut child = entered
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(format!("`unshare` could not be started: {error}")))?;
        let mut output = BufReader::new(child.stdout.take().ok_or_else(|| Failure::new("no output of `unshare`"))?);
        let mut line = String::new();
        let lost = |error: std::io::Error| Failure::new(format!("`unshare`: {error}"));
        output.read_line(&mut line).map_err(lost)?;
        for map in ["gid_map", "uid_map"] {
            let path = PathBuf::from(format!("/proc/{}/{map}", child.id()));
            fs::write(&path, "0 0 65536\n").map_err(|error| Failure::file("write", &path, &error))?;
        }
        if let Some(mut input) = child.stdin.take() {
            input.write_all(b"go\n").map_err(lost)?;
        }
        for line in output.lines() {
            println!("{}", line.map_err(lost)?);
        }
        let status = child.wait().map_err(lost)?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("failed in the chroot ({status})"))) }
    }
}

/// The search path, with what only root looks for.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
