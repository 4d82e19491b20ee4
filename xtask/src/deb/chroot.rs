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
use crate::{deb, install, workspace};

/// What it needs: Debian's package and a program in it.
const PACKAGES: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("iproute2", "ip")];
const EMULATORS: (&str, &str) = ("qemu-user-static", "qemu-aarch64-static");
/// Where the system keeps what must be said to `binfmt_misc`.
const FORMATS: &str = "/usr/lib/binfmt.d";

/// A trial needs no security updates, and the index of these may be half renewed on a mirror, for days, where the release is whole.
const RELEASE_ONLY: &str = "--setup-hook=find \"$1\"/etc/apt -name '*.list' -exec sed -i '/-security/d' {} +";

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

/// What boots systemd in the archive: `$1` the folder, `$2` the archive, `$3` a file for what the trial says, then the trial and its
/// packages, of which the first is installed. The exit code is that of the trial.
///
/// What belongs to the machine (kernel settings, devices, its clock) is masked; the namespaces would refuse it as well.
const BOOT: &str = r#"
set -e
ip link set lo up
root=$1 archive=$2 said=$3
mkdir -p "$root"
mount -t tmpfs -o mode=755 none "$root"
tar -C "$root" --exclude='./dev/*' -xf "$archive"
shift 3
mount -t tmpfs -o mode=755 none "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 none "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
umount -R "$root/sys/fs/cgroup" 2>/dev/null || mount -t tmpfs none "$root/sys/fs/cgroup"
mount -t cgroup2 none "$root/sys/fs/cgroup"
names=''
for file; do
    cp "$file" "$root/srv/"
    names="$names /srv/$(basename "$file")"
done
: >"$said"
: >"$root/said"
mount --bind "$said" "$root/said"
units=$root/etc/systemd/system
for unit in systemd-udevd systemd-udev-trigger systemd-sysctl systemd-modules-load systemd-timesyncd systemd-logind     systemd-networkd systemd-tmpfiles-setup-dev console-getty; do
    ln -sf /dev/null "$units/$unit.service"
done
cat >"$units/trial.service" <<UNIT
[Unit]
After=portcullis.service
SuccessAction=exit
FailureAction=exit
FailureActionExitStatus=1
[Service]
Type=oneshot
TimeoutStartSec=600
StandardOutput=append:/said
StandardError=append:/said
ExecStart=/bin/sh $names
UNIT
mkdir -p "$units/multi-user.target.wants"
ln -s ../trial.service "$units/multi-user.target.wants/"
chroot "$root" dpkg -i "/srv/$(basename "$2")" </dev/null
mkdir "$root/oldroot"
cd "$root"
pivot_root . oldroot
umount -l /oldroot
# systemd leaves this to whoever makes a container; without it no credentials arrive.
mount --make-rshared /
exec env -i container=portcullis PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --log-level=warning \
    systemd.unit=multi-user.target
"#;

/// An unpacked Debian.
pub struct Chroot {
    archive: PathBuf,
    folder: PathBuf,
    format: Option<PathBuf>,
}

impl Chroot {
    /// The Debian of an architecture, fetched into `folder` where it is not there yet.
    pub fn of(target: &Target, suite: &str, with: With, folder: &Path) -> Outcome<Self> {
        let architecture = deb::architecture(target)?;
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
        let archive =
            workspace::target_folder().join("debian").join(format!("{suite}-{architecture}{}.tar", with.ending()));
        let chroot = Self { archive, folder: folder.join("chroot"), format };
        if !chroot.archive.is_file() {
            chroot.fetch(&architecture, suite, with)?;
        }
        Ok(chroot)
    }

    fn fetch(&self, architecture: &str, suite: &str, with: With) -> Outcome {
        let partial = self.archive.with_extension("partial.tar");
        workspace::make_folder(self.archive.parent().unwrap_or(&self.folder))?;
        self.enter(
            Command::new("mmdebstrap")
                .args(["--mode=root", "--variant=minbase", "--aptopt=APT::Sandbox::User \"root\"", RELEASE_ONLY])
                .arg(format!("--architectures={architecture}"))
                .args(with.options())
                .arg(suite)
                .arg(&partial),
            Own::Files,
        )?;
        fs::rename(&partial, &self.archive).map_err(|error| Failure::file("move", &partial, &error))
    }

    /// Runs a script in a fresh copy, with copies of `packages` as its arguments.
    pub fn run(&self, script: &Path, packages: &[PathBuf]) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", TRY, "sh"]).arg(&self.folder).arg(&self.archive).arg(script).args(packages);
        self.enter(&command, Own::Network)
    }

    /// Boots systemd in a fresh copy with the first of `files`, a package, installed, and runs a script there, with copies of `files` as its
    /// arguments.
    pub fn boot(&self, script: &Path, files: &[PathBuf]) -> Outcome {
        let said = self.folder.with_extension("said");
        let mut command = Command::new("sh");
        command.args(["-c", BOOT, "sh"]).arg(&self.folder).arg(&self.archive).arg(&said).arg(script).args(files);
        let groups = ControlGroup::make()?;
        let outcome = self.enter(&command, Own::ControlGroup(&groups));
        print!("{}", fs::read_to_string(&said).unwrap_or_default());
        outcome
    }

    /// Runs a command as root of namespaces of its own: all users are who they are outside, but have power over nothing there.
    fn enter(&self, command: &Command, own: Own<'_>) -> Outcome {
        println!("in namespaces of its own: {}", command.get_program().to_string_lossy());
        // The shell that waits has no capabilities, since nobody is root yet; the program it becomes has.
        let mut inner = "unshare --mount --pid --fork --kill-child --mount-proc".to_owned();
        let mut join = String::new();
        match own {
            Own::Files => {}
            Own::Network => inner.push_str(" --net"),
            Own::ControlGroup(group) => {
                inner.push_str(" --net --cgroup --uts --ipc");
                join = format!("echo $$ >{}/cgroup.procs; ", group.0.display());
            }
        }
        let wait = format!("echo there; read -r go; exec {inner} sh -c \"$0\" sh \"$@\" </dev/null");
        let mut entered = Command::new("sh");
        entered.arg("-c").arg(format!("{join}exec unshare --user sh -c \"$0\" \"$@\"")).arg(wait);
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

/// What a Debian has beside the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// The service manager, and what a deploy comes in by.
    Systemd,
}

impl With {
    fn ending(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Systemd => "-systemd-ssh",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Systemd => &["--include=systemd,systemd-sysv,openssh-server,openssh-client,sudo"],
        }
    }
}

/// What a command has for itself beside users, mounts and processes.
#[derive(Clone, Copy)]
enum Own<'a> {
    Files,
    Network,
    /// The network too, names, and a control group of the machine's tree.
    ControlGroup(&'a ControlGroup),
}

/// A control group of version 2, empty again and removed with this value.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn make() -> Outcome<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let tree = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        });
        let tree =
            tree.ok_or_else(|| Failure::new("systemd wants control groups of version 2, and none are mounted"))?;
        let path = tree.join(format!("portcullis-trial-{}", std::process::id()));
        workspace::make_folder(&path)?;
        Ok(Self(path))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Inner ones first. What does not go is empty, and gone with the next start of the machine.
        let mut removing = Command::new("find");
        removing.arg(&self.0).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]);
        let _ = removing.stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
}
