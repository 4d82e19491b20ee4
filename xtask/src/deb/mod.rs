//! `cargo xtask deb`: Debian packages in `target/dist/`.
//!
//! Comes in: release binaries, `cross/debian/` with the texts of the package, `config/`, the help texts of the binary. Goes out: a
//! package for each target. It is put together by `dpkg-deb`; there is no other machinery, and what its scripts do can be read there.
//!
//! **Invariant:** the same sources, maintainer and `SOURCE_DATE_EPOCH` (by default the time of the last commit) give the same bytes.

mod changelog;
mod chroot;
mod completions;
mod help;
mod maintainer;
mod manual;
mod notices;
mod tree;
pub mod trial;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lexopt::ValueExt as _;

use crate::process::{self, Failure, Outcome};
use crate::targets::{self, NAMES, Target};
use crate::{build, install, workspace};
pub use maintainer::Maintainer;
use tree::{CLOSED, PLAIN, PROGRAM, Tree};

const HELP: &str = "\
Makes Debian packages in target/dist/.

Usage: cargo xtask deb [--target aarch64|armv7|host|all] [--version VERSION]
                       [--binary FILE] [--maintainer 'NAME <ADDRESS>']

  --target NAME      one target (default: host): arm64, armhf or this machine's
                     architecture; all of them with `all`
  --version VERSION  the version of the package (default: that of the workspace)
  --binary FILE      pack this static binary instead of building one
  --maintainer 'NAME <ADDRESS>'
                     who answers for the package, in its control file and changelog
                     (default: DEBFULLNAME and DEBEMAIL where both are set, as for
                     Debian's own tools; else an address that nobody can have)

The same sources give the same package: times are SOURCE_DATE_EPOCH, or those of
the last commit.";

/// The board that a fresh installation is sized for, by the name of the target: one that every machine of the architecture has
/// the memory of.
const BOARDS: [(&str, &str); 3] = [("aarch64", "rpi3"), ("armv7", "rpi2"), ("host", "host")];

/// Files of `cross/debian/` that are installed as they are, after their names have been filled in; and where.
const UNITS: [&str; 3] = ["portcullis.service", "portcullis-bake.path", "portcullis-bake.service"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const SOURCES: [&str; 2] = ["gateway.yaml", "listener.yaml"];

/// What a package is made of.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The machine.
    pub target: Target,
    /// Debian's version.
    pub version: String,
    /// Who answers for it, in Debian's form.
    pub maintainer: Maintainer,
    /// The program.
    pub binary: PathBuf,
    /// The folder for the package, and for what is packed below `deb/`.
    pub out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("deb", error);
    let (mut name, mut version, mut binary) = ("host".to_owned(), env!("CARGO_PKG_VERSION").to_owned(), None);
    let mut maintainer = None;
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("target") => name = text(&mut parser).map_err(|error| usage(&error))?,
            lexopt::Arg::Long("version") => version = text(&mut parser).map_err(|error| usage(&error))?,
            lexopt::Arg::Long("binary") => {
                binary = Some(PathBuf::from(text(&mut parser).map_err(|error| usage(&error))?));
            }
            lexopt::Arg::Long("maintainer") => {
                maintainer = Some(Maintainer::named(&text(&mut parser).map_err(|error| usage(&error))?)?);
            }
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let maintainer = maintainer.map_or_else(Maintainer::of_environment, Ok)?;
    let wanted = if name == "all" { targets::all()? } else { vec![named(&name)?] };
    if wanted.len() > 1 && binary.is_some() {
        return Err(Failure::new("--binary is for one target"));
    }
    let mut made = Vec::new();
    for target in wanted {
        let binary = match &binary {
            Some(binary) => binary.clone(),
            None => released(&target)?,
        };
        let (version, maintainer) = (version.clone(), maintainer.clone());
        let contents = Contents { target, version, maintainer, binary, out: workspace::dist_folder() };
        made.push(contents.pack()?);
    }
    for package in made {
        let bytes = fs::metadata(&package).map_err(|error| Failure::file("read", &package, &error))?.len();
        println!("{bytes:>9} bytes  {}", package.display());
    }
    Ok(())
}

fn text(parser: &mut lexopt::Parser) -> Result<String, lexopt::Error> {
    parser.value()?.string()
}

/// Debian's name of a machine.
pub fn architecture(target: &Target) -> Outcome<String> {
    if target.debian.is_empty() {
        return Ok(process::capture(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned());
    }
    Ok(target.debian.to_owned())
}

/// The target with a name of the command line.
pub fn named(name: &str) -> Outcome<Target> {
    Target::named(name)?
        .ok_or_else(|| Failure::new(format!("there is no target `{name}`; it is one of {}, all", NAMES.join(", "))))
}

/// A release binary, built now.
pub fn released(target: &Target) -> Outcome<PathBuf> {
    install::for_targets(std::slice::from_ref(target))?;
    Ok(build::release(target, &[])?.0)
}

impl Contents {
    /// Makes the package; where it is.
    pub fn pack(&self) -> Outcome<PathBuf> {
        if process::find("dpkg-deb").is_none() {
            return Err(Failure::new(
                "dpkg-deb is missing on this machine: packages are made on Debian and its children",
            ));
        }
        build::check(&self.binary, &self.target)?;
        let architecture = architecture(&self.target)?;
        let time = time()?;
        let tree = Tree::new(self.out.join("deb").join(&architecture))?;
        self.fill(&tree, time)?;
        self.control(&tree, &architecture)?;
        let package = self.out.join(format!("portcullis_{}_{architecture}.deb", self.version));
        let mut command = Command::new("dpkg-deb");
        command.env("SOURCE_DATE_EPOCH", time.to_string());
        command.args(["--root-owner-group", "-Zxz", "--build"]).arg(tree.root()).arg(&package);
        process::run(&mut command)?;
        Ok(package)
    }

    fn fill(&self, tree: &Tree, time: u64) -> Outcome {
        let root = workspace::root();
        tree.copy(&self.binary, "usr/bin/portcullis", PROGRAM)?;
        for name in UNITS {
            tree.write(&format!("usr/lib/systemd/system/{name}"), &self.template(name)?, PLAIN)?;
        }
        for name in SOURCES {
            tree.write(&format!("etc/portcullis/{name}"), &self.template(name)?, PLAIN)?;
        }
        for name in ["trust", "keys", "revocation"] {
            tree.folder(&format!("etc/portcullis/{name}"), PROGRAM)?;
        }
        tree.folder("etc/portcullis/secrets", CLOSED)?;
        let (overview, subjects) = help::read(&self.binary, self.target.runner)?;
        let date = formatted(time, "+%Y-%m-%d")?;
        let page = manual::page(&self.version, &date, &overview, &subjects, &read(&assets().join("manual"))?);
        tree.write_compressed("usr/share/man/man1/portcullis.1", &page)?;
        let boards = boards()?;
        let shells = [
            ("bash-completion/completions/portcullis", completions::bash(&overview, &subjects, &boards)),
            ("zsh/vendor-completions/_portcullis", completions::zsh(&overview, &subjects, &boards)),
            ("fish/vendor_completions.d/portcullis.fish", completions::fish(&overview, &subjects, &boards)),
        ];
        for (path, text) in shells {
            tree.write(&format!("usr/share/{path}"), &text, PLAIN)?;
        }
        let documents = "usr/share/doc/portcullis";
        tree.copy(&assets().join("copyright"), &format!("{documents}/copyright"), PLAIN)?;
        let changes = read(&root.join("CHANGELOG.md"))?;
        let changes = changelog::debian(&changes, &self.version, &self.maintainer, &formatted(time, "-R")?)?;
        tree.write_compressed(&format!("{documents}/changelog"), &changes)?;
        tree.write_compressed(&format!("{documents}/third-party-licences"), &notices::text(&self.target)?)?;
        tree.write_compressed(&format!("{documents}/README.md"), &read(&root.join("README.md"))?)?;
        for folder in ["tutorial", "grafana"] {
            for name in names(&root.join("config").join(folder))? {
                let from = root.join("config").join(folder).join(&name);
                tree.copy(&from, &format!("{documents}/examples/{folder}/{name}"), PLAIN)?;
            }
        }
        tree.copy(&assets().join("lintian-overrides"), "usr/share/lintian/overrides/portcullis", PLAIN)
    }

    /// The package's control files.
    fn control(&self, tree: &Tree, architecture: &str) -> Outcome {
        let size = tree.kibibytes()?.to_string();
        let files = tree.files()?;
        let mut sums = Command::new("md5sum");
        let sums = process::capture(sums.current_dir(tree.root()).args(&files))?;
        let configuration = files.iter().filter(|file| file.starts_with("etc/"));
        let configuration: String = configuration.map(|file| format!("/{file}\n")).collect();
        let text = read(&assets().join("control"))?;
        let text = text.replace("@VERSION@", &self.version).replace("@ARCHITECTURE@", architecture);
        let text = text.replace("@INSTALLED_SIZE@", &size).replace("@MAINTAINER@", &self.maintainer.to_string());
        tree.write("DEBIAN/control", &text, PLAIN)?;
        tree.write("DEBIAN/conffiles", &configuration, PLAIN)?;
        tree.write("DEBIAN/md5sums", &sums, PLAIN)?;
        for name in SCRIPTS {
            tree.copy(&assets().join(name), &format!("DEBIAN/{name}"), PROGRAM)?;
        }
        Ok(())
    }

    /// A file of `cross/debian/` with the board's names and figures.
    fn template(&self, name: &str) -> Outcome<String> {
        let board = BOARDS.iter().find(|(target, _)| *target == self.target.name).map_or("host", |(_, board)| board);
        let budget = budget(&read(&workspace::root().join("board").join(format!("{board}.yaml")))?)
            .ok_or_else(|| Failure::new(format!("board/{board}.yaml names no memoryBudgetBytes")))?;
        let text = read(&assets().join(name))?;
        let text = text.replace("@BOARD@", board).replace("@BUDGET@", &budget.to_string());
        Ok(text.replace("@MEMORY_MAX@", &(budget + budget / 2).to_string()))
    }
}

/// `memoryBudgetBytes` of a board.
fn budget(board: &str) -> Option<u64> {
    board.lines().find_map(|line| line.trim().strip_prefix("memoryBudgetBytes:"))?.trim().parse().ok()
}

/// The names of all boards.
fn boards() -> Outcome<Vec<String>> {
    let names = names(&workspace::root().join("board"))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".yaml")).map(str::to_owned).collect())
}

/// The names of the files in a folder, in order.
fn names(folder: &Path) -> Outcome<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    let files = entries.filter_map(Result::ok).filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Where the package's texts are.
fn assets() -> PathBuf {
    workspace::root().join("cross/debian")
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))
}

/// The time of everything in a package, seconds since 1970.
fn time() -> Outcome<u64> {
    let told = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(told) => told,
        Err(_) => {
            process::capture(Command::new("git").current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]))
                .map_err(|failure| Failure::new(format!("{failure}; outside of a checkout, set SOURCE_DATE_EPOCH")))?
        }
    };
    told.trim().parse().map_err(|_| Failure::new(format!("SOURCE_DATE_EPOCH is no number of seconds: {}", told.trim())))
}

fn formatted(time: u64, format: &str) -> Outcome<String> {
    let mut command = Command::new("date");
    command.env("LC_ALL", "C").args(["-u", "-d"]).arg(format!("@{time}")).arg(format);
    Ok(process::capture(&mut command)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_board_whose_budget_limits_the_service() {
        for name in NAMES {
            let contents = Contents {
                target: named(name).unwrap(),
                version: String::new(),
                maintainer: Maintainer::default(),
                binary: PathBuf::new(),
                out: PathBuf::new(),
            };
            assert!(BOARDS.iter().any(|(target, _)| *target == name), "{name}");
            let unit = contents.template("portcullis.service").unwrap();
            let limit = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")).unwrap();
            assert!(limit.parse::<u64>().unwrap() >= 64 * 1024 * 1024, "{name}: {limit}");
            for file in UNITS.iter().chain(&SOURCES) {
                let text = contents.template(file).unwrap();
                let is_left = |part: &str| part.starts_with(|letter: char| letter.is_ascii_uppercase());
                assert!(!text.split('@').skip(1).any(is_left), "{file}");
            }
        }
    }
}
