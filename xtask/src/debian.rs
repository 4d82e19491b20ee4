//! Debian's Rust compiler, with standard libraries of foreign architectures unpacked beside it.
//!
//! Debian builds its standard library for every architecture, and compiler and library must be of one version. The foreign
//! packages are unpacked, not installed: installing them would drag foreign compilers in.
//!
//! **Invariant:** what is unpacked has been verified, by apt against the signed index, or by us against a digest below.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{install, workspace};

/// Debian's compiler.
pub const COMPILER: &str = "/usr/bin/rustc";
/// The package of the compiler: the one that follows Firefox, and so is recent in every release.
const COMPILER_PACKAGE: &str = "rustc-web";
/// The package of the standard library, for each architecture.
const LIBRARY_PACKAGE: &str = "libstd-rust-web-dev";

/// SHA-256 of library packages, for the case that a mirror's index of an architecture is stale while the package is there.
const DIGESTS: [(&str, &str, &str); 1] = [("1.96.0+dfsg1-1~deb12u2", "armhf", ARMHF_1_96)];
const ARMHF_1_96: &str = "b9f9dd1d03a903680f918cb2bba00a2a3d76558545d5e6a8061072ab461bb989";

/// The sysroot for a target, made when it is not there.
pub fn sysroot(target: &Target) -> Outcome<PathBuf> {
    if process::find("apt-get").is_none() {
        return Err(Failure::new(format!("no standard library for {0}: run `rustup target add {0}`", target.triple)));
    }
    let mut version = installed_version(COMPILER_PACKAGE)?;
    if version.is_none() {
        install::packages(&[COMPILER_PACKAGE, LIBRARY_PACKAGE])?;
        version = installed_version(COMPILER_PACKAGE)?;
    }
    let version = version
        .ok_or_else(|| Failure::new(format!("the package {COMPILER_PACKAGE} is not there after its installation")))?;
    let folder = workspace::cross_folder().join(version.replace(['+', '~', ':'], "-")).join(target.debian);
    let library = folder.join("usr/lib/rustlib").join(&target.triple).join("lib");
    if !library.is_dir() {
        unpack(&version, target, &folder)?;
        if !library.is_dir() {
            return Err(Failure::new(format!("{LIBRARY_PACKAGE} {version} has no library for {}", target.triple)));
        }
    }
    Ok(folder.join("usr"))
}

/// Downloads the library of a version and unpacks it, with a link to the host's own library beside it, which build
/// scripts and procedural macros are built with.
fn unpack(version: &str, target: &Target, folder: &Path) -> Outcome {
    let partial = folder.with_extension("partial");
    workspace::remove_folder(&partial)?;
    workspace::make_folder(&partial)?;
    let package = download(version, target, &partial)?;
    process::run(Command::new("dpkg").arg("-x").arg(&package).arg(&partial))?;
    let libraries = partial.join("usr/lib/rustlib");
    workspace::make_folder(&libraries)?;
    let host = Path::new("/usr/lib/rustlib").join(crate::targets::host_triple()?);
    let link = libraries.join(host.file_name().unwrap_or_default());
    std::os::unix::fs::symlink(&host, &link).map_err(|error| Failure::file("link", &link, &error))?;
    workspace::remove_folder(folder)?;
    std::fs::rename(&partial, folder).map_err(|error| Failure::file("move", &partial, &error))
}

/// Fetches the library's package into `folder`, through an apt state of its own, so that the system's is not touched.
fn download(version: &str, target: &Target, folder: &Path) -> Outcome<PathBuf> {
    let lists = folder.join("apt");
    workspace::make_folder(&lists.join("partial"))?;
    let apt = |architecture: &str| {
        let mut command = Command::new("apt-get");
        command.current_dir(folder).arg("-qq");
        command.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
        command.arg("-o").arg(format!("APT::Architecture={architecture}"));
        command.arg("-o").arg(format!("APT::Architectures={architecture}"));
        command.arg("-o").arg("APT::Sandbox::User=root");
        command
    };
    if let Err(failure) = process::run(apt(target.debian).arg("update")) {
        println!("note: {failure}; going on with what was fetched");
    }
    let wanted = format!("{LIBRARY_PACKAGE}:{}={version}", target.debian);
    if process::run(apt(target.debian).arg("download").arg(&wanted)).is_err() {
        println!("note: the index for {} has not {version}; trying the package itself", target.debian);
        download_unlisted(version, target, folder)?;
    }
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| {
            Failure::new(format!("cannot get {wanted}; `rustup target add {}` serves as well", target.triple))
        })
}

/// Fetches the package of an architecture whose index is stale from where the host's own package is.
fn download_unlisted(version: &str, target: &Target, folder: &Path) -> Outcome {
    let digest = DIGESTS.iter().find(|(known, architecture, _)| *known == version && *architecture == target.debian);
    let (_, _, digest) = digest.ok_or_else(|| {
        Failure::new(format!("no digest is known of {LIBRARY_PACKAGE} {version} for {}", target.debian))
    })?;
    let host = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let listed = process::capture(
        Command::new("apt-get").args(["download", "--print-uris"]).arg(format!("{LIBRARY_PACKAGE}={version}")),
    )?;
    let address = listed.split('\'').nth(1).unwrap_or_default();
    let address = address.replace(&format!("_{}.deb", host.trim()), &format!("_{}.deb", target.debian));
    process::run(
        Command::new("/usr/lib/apt/apt-helper")
            .arg("download-file")
            .arg(address)
            .arg(folder.join("library.deb"))
            .arg(format!("SHA256:{digest}")),
    )
}

/// The version of an installed package; `None` when it is not installed.
fn installed_version(package: &str) -> Outcome<Option<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status} ${Version}", package]);
    let Ok(told) = process::capture(&mut query) else { return Ok(None) };
    Ok(told.strip_prefix("installed ").map(str::to_owned))
}
