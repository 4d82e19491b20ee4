//! The certificates of the factory tutorial, under the file names that the tutorial uses.
//!
//! Contoso runs the factory: a root, an intermediate, and the broker's certificate `mqtts-endpoint`. Fabrikam makes the
//! devices: a root, an intermediate, and four clients. Each leaf's file holds the leaf and its intermediate.

use super::{Host, Issued, PkiFault, Template};
use crate::distinguished_name::DistinguishedName;
use crate::time::UnixTime;
use core::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The clients of the tutorial.
pub const CLIENTS: [&str; 4] = ["thermostat", "hygrometer", "heater", "lightbulb"];

/// How long authorities last, seconds: ten years.
const AUTHORITY_SECONDS: u64 = 10 * 365 * 24 * 3_600;
/// How long leaves last, seconds: the tutorial's 2400 hours.
const LEAF_SECONDS: u64 = 2_400 * 3_600;
/// Certificates begin a little in the past, for clients whose clock is behind. Seconds.
const BACKDATE_SECONDS: u64 = 3_600;

/// Why the certificates are not there.
#[derive(Debug)]
pub enum DemoFault {
    /// A certificate cannot be made.
    Pki(PkiFault),
    /// A file or folder cannot be made or read.
    File(PathBuf, io::Error),
    /// An authority's certificate is there without its key, so that nothing new can be signed by it.
    KeyMissing(PathBuf),
}

impl fmt::Display for DemoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pki(fault) => write!(f, "{fault}"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::KeyMissing(path) => write!(
                f,
                "{} is missing while its other half is there; put it back, or choose another folder with --dir",
                path.display()
            ),
        }
    }
}

impl core::error::Error for DemoFault {}

impl From<PkiFault> for DemoFault {
    fn from(fault: PkiFault) -> Self {
        Self::Pki(fault)
    }
}

/// What was made, and what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    directory: PathBuf,
    made: Vec<String>,
    kept: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory.display();
        if !self.made.is_empty() {
            write!(f, "Made certificates in {directory}: {}.", self.made.join(", "))?;
        }
        if !self.made.is_empty() && !self.kept.is_empty() {
            f.write_str("\n")?;
        }
        if !self.kept.is_empty() {
            write!(f, "Kept what was in {directory}: {}.", self.kept.join(", "))?;
        }
        Ok(())
    }
}

/// Makes what is missing in `directory`: `<name>.crt` and `<name>.key` for both roots, both intermediates, the broker and the
/// four clients. Keys are readable by their owner only. Nothing that is there is overwritten.
///
/// # Errors
/// A file that cannot be written, half a pair, or no entropy.
pub fn create(directory: &Path) -> Result<Report, DemoFault> {
    let now = UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()));
    create_at(directory, now)
}

fn create_at(directory: &Path, now: UnixTime) -> Result<Report, DemoFault> {
    fs::create_dir_all(directory).map_err(|error| DemoFault::File(directory.to_owned(), error))?;
    let mut maker = Maker {
        directory,
        begin: UnixTime(now.0.saturating_sub(BACKDATE_SECONDS)),
        now,
        report: Report { directory: directory.to_owned(), made: Vec::new(), kept: Vec::new() },
    };
    let contoso_root = maker.authority("contoso_root_ca", "Contoso Root CA", 1, None)?;
    let contoso = maker.authority("contoso_intermediate_ca", "Contoso Intermediate CA 1", 0, Some(&contoso_root))?;
    let hosts = vec![
        Host::Name("localhost".to_owned()),
        Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Host::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    maker.leaf("mqtts-endpoint", hosts, &contoso)?;
    let fabrikam_root = maker.authority("fabrikam_root_ca", "Fabrikam Root CA", 1, None)?;
    let fabrikam =
        maker.authority("fabrikam_intermediate_ca", "Fabrikam Intermediate CA 1", 0, Some(&fabrikam_root))?;
    for client in CLIENTS {
        maker.leaf(client, Vec::new(), &fabrikam)?;
    }
    Ok(maker.report)
}

struct Maker<'a> {
    directory: &'a Path,
    now: UnixTime,
    begin: UnixTime,
    report: Report,
}

impl Maker<'_> {
    fn authority(
        &mut self,
        file: &str,
        common_name: &str,
        path_length: u8,
        issuer: Option<&Issued>,
    ) -> Result<Issued, DemoFault> {
        let (certificate, key) = self.paths(file);
        if self.is_there(&certificate, &key)? {
            self.report.kept.push(file.to_owned());
            return Ok(Issued::from_pem(&read(&certificate)?, &read(&key)?)?);
        }
        let subject = subject(common_name);
        let end = self.now.plus_seconds(AUTHORITY_SECONDS);
        let template = Template::authority(subject, Some(path_length), self.begin, end);
        let issued = match issuer {
            None => Issued::root(&template)?,
            Some(issuer) => issuer.issue(&template)?,
        };
        write(&key, &issued.key_pem()?, 0o600)?;
        write(&certificate, &issued.certificate_pem()?, 0o644)?;
        self.report.made.push(file.to_owned());
        Ok(issued)
    }

    fn leaf(&mut self, name: &str, hosts: Vec<Host>, issuer: &Issued) -> Result<(), DemoFault> {
        let (certificate, key) = self.paths(name);
        if self.is_there(&certificate, &key)? {
            self.report.kept.push(name.to_owned());
            return Ok(());
        }
        let mut template = Template::leaf(subject(name), self.begin, self.now.plus_seconds(LEAF_SECONDS));
        template.hosts = hosts;
        let issued = issuer.issue(&template)?;
        write(&key, &issued.key_pem()?, 0o600)?;
        write(&certificate, &(issued.certificate_pem()? + &issuer.certificate_pem()?), 0o644)?;
        self.report.made.push(name.to_owned());
        Ok(())
    }

    fn paths(&self, file: &str) -> (PathBuf, PathBuf) {
        (self.directory.join(format!("{file}.crt")), self.directory.join(format!("{file}.key")))
    }

    /// Whether both halves are there.
    fn is_there(&self, certificate: &Path, key: &Path) -> Result<bool, DemoFault> {
        match (certificate.exists(), key.exists()) {
            (false, false) => Ok(false),
            (true, true) => Ok(true),
            (true, false) => Err(DemoFault::KeyMissing(key.to_owned())),
            (false, true) => Err(DemoFault::KeyMissing(certificate.to_owned())),
        }
    }
}

fn subject(common_name: &str) -> DistinguishedName {
    // 2.5.4.3 in DER.
    DistinguishedName { relative_names: vec![vec![(vec![0x55, 4, 3], common_name.to_owned())]] }
}

fn read(path: &Path) -> Result<String, DemoFault> {
    fs::read_to_string(path).map_err(|error| DemoFault::File(path.to_owned(), error))
}

/// Writes a new file; one that appeared meanwhile is left alone.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DemoFault> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| DemoFault::File(path.to_owned(), error))
}
