//! The node's own key: 32 bytes in a file that only its owner can read.
//!
//! Made at the first start, durable before it is used. One that cannot be read is never replaced;
//! one of another length is moved aside, loudly, for overrides signed with it are lost with it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::Rng;

use crate::model::key::PrivateKey;

/// The key at `path`, or a fresh one.
pub(super) fn read_or_make(path: &Path) -> io::Result<PrivateKey> {
    match fs::read(path) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(seed) => return Ok(PrivateKey::from_seed(seed)),
            Err(_) => {
                let aside = super::file::aside(path);
                tracing::error!(
                    length = bytes.len(), moved_to = %aside.display(),
                    "the node's key is damaged: moved aside, making another"
                );
                fs::rename(path, aside)?;
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut seed = [0u8; 32];
    rand::rng().fill_bytes(&mut seed);
    let fresh = path.with_extension("key.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(&seed)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    super::file::sync_directory_of(path)?;
    Ok(PrivateKey::from_seed(seed))
}
