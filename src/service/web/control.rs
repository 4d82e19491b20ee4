//! The control socket: a door in the file system.
//!
//! **Invariants:** at no time can anybody connect whom the final mode keeps out; nothing that is not a socket is ever removed, and
//! no socket of a broker that lives.

use async_io::Async;
use core::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Owner and group may connect; whoever may connect may disconnect clients.
const MODE: u32 = 0o660;
/// Longest path of a socket: `sun_path` of unix(7) has 108 bytes, the last of them NUL.
const PATH_BYTES_MAX: usize = 107;
/// Under which name it is made, beside its own, before its mode is right.
const UNFINISHED: &str = ".control-new";

/// Why there is none.
#[derive(Debug)]
pub enum ControlFault {
    /// The path does not fit into a socket's address.
    PathTooLong,
    /// A broker answers on it.
    InUse,
    /// Something that is no socket lies there.
    NotASocket,
    /// What the file system says.
    Io(io::Error),
}

impl fmt::Display for ControlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathTooLong => write!(
                f,
                "the path is longer than the {PATH_BYTES_MAX} bytes that a socket's may have; name a shorter one with --control"
            ),
            Self::InUse => f.write_str("another broker answers on it"),
            Self::NotASocket => f.write_str("something that is no socket lies there already"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ControlFault {}

impl From<io::Error> for ControlFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The socket, which goes away with this value.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Device and number of the file, to remove no other one's.
    file: (u64, u64),
}

impl ControlSocket {
    /// Makes the socket at `path`; one that nobody listens on any more is replaced. Folders above it are made for their owner
    /// only.
    ///
    /// # Errors
    /// Why it cannot be made; what was there is there still.
    pub fn bind(path: &Path) -> Result<(Self, Async<UnixListener>), ControlFault> {
        let unfinished = path.with_file_name(UNFINISHED);
        if [path, &unfinished].iter().any(|path| path.as_os_str().len() > PATH_BYTES_MAX) {
            return Err(ControlFault::PathTooLong);
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        check_vacant(path)?;
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        // Bound under another name, because its mode is right only later.
        let listener = UnixListener::bind(&unfinished)?;
        let finish = || {
            fs::set_permissions(&unfinished, Permissions::from_mode(MODE))?;
            let metadata = fs::symlink_metadata(&unfinished)?;
            fs::rename(&unfinished, path)?;
            Ok::<_, io::Error>((metadata.dev(), metadata.ino()))
        };
        let file = finish().inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
        Ok((Self { path: path.to_owned(), file }, Async::new(listener)?))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let own = fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if own {
            // A socket that stays is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether nothing lies at `path`, or a socket on which nobody listens.
fn check_vacant(path: &Path) -> Result<(), ControlFault> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        outcome => outcome?,
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlFault::NotASocket);
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error.into()),
        // Whoever has no room for us lives too.
        Ok(_) | Err(_) => Err(ControlFault::InUse),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("portcullis-control-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn owner_and_group_may_connect_and_nothing_is_left_at_the_end() {
        let folder = Folder::new("mode");
        let path = folder.0.join("state/control.sock");
        let (socket, _listener) = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_a_living_one_is_not() {
        let folder = Folder::new("stale");
        let path = folder.0.join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (first, listener) = ControlSocket::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlFault::InUse)));
        assert!(UnixStream::connect(&path).is_ok());
        // Somebody else's socket in its place is not removed with it.
        drop(listener);
        let (second, _listener) = ControlSocket::bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = Folder::new("file");
        let path = folder.0.join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlFault::NotASocket)));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        std::os::unix::fs::symlink("elsewhere", folder.0.join("link")).unwrap();
        assert!(matches!(ControlSocket::bind(&folder.0.join("link")), Err(ControlFault::NotASocket)));
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_said() {
        let path = std::env::temp_dir().join("x".repeat(PATH_BYTES_MAX));
        assert!(matches!(ControlSocket::bind(&path), Err(ControlFault::PathTooLong)));
    }
}
