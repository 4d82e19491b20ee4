//! Writing a header.

use super::header::{FIRST_LINE, Fault, Manifest, SIGNATURE, is_board, is_release};
use core::fmt::Write as _;
use ed25519_dalek::{Signer as _, SigningKey};

/// The header of an update, signed; the payload belongs behind it.
///
/// # Errors
/// [`Fault::Field`]: this field has a value that no reader takes.
pub fn signed_header(manifest: &Manifest, key: &SigningKey) -> Result<String, Fault> {
    let Manifest { kind, board, version, release, bytes, digest } = manifest;
    if !is_board(board) {
        return Err(Fault::Field("board"));
    }
    if !is_release(release) {
        return Err(Fault::Field("release"));
    }
    let mut text = format!(
        "{FIRST_LINE}\nkind={}\nboard={board}\nversion={version}\nrelease={release}\nbytes={bytes}\nsha256={}\n",
        kind.name(),
        hexadecimal(digest)
    );
    let signature = key.sign(text.as_bytes()).to_bytes();
    text.push_str(SIGNATURE);
    text.push_str(&hexadecimal(&signature));
    text.push_str("\n\n");
    Ok(text)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
