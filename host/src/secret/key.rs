//! A key of the user's own, under which a hash of a secret gives nothing away.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{SecretError, file};

const FILE: &str = "fingerprint.key";
const BYTES: usize = 32;

/// Hashes what may not be seen. Whoever does not have the key cannot try out guesses.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key of this user: in `pype` under `XDG_STATE_HOME` or `~/.local/state`, made when it is first asked for.
    ///
    /// # Errors
    /// It cannot be read or made, or others may read it.
    pub fn of_user() -> Result<Self, SecretError> {
        Self::in_folder(&state_folder()?)
    }

    /// The key in this folder.
    ///
    /// # Errors
    /// As [`Key::of_user`].
    pub fn in_folder(folder: &Path) -> Result<Self, SecretError> {
        let path = folder.join(FILE);
        if !path.exists() {
            make(folder, &path).map_err(|source| SecretError::Io { path: path.clone(), source })?;
        }
        let hex = file::read(&path)?;
        let too_short = || SecretError::Io { path: path.clone(), source: io::ErrorKind::UnexpectedEof.into() };
        let hex = Some(hex.trim()).filter(|hex| hex.len() >= 2 * BYTES).ok_or_else(too_short)?;
        Ok(Self(Hmac::new_from_slice(hex.as_bytes()).expect("HMAC takes a key of any length")))
    }

    /// HMAC-SHA256 (RFC 2104), in hexadecimal.
    pub fn hash(&self, text: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

fn state_folder() -> Result<PathBuf, SecretError> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(std::env::home_dir()?.join(".local/state"));
    let state = set("XDG_STATE_HOME").or_else(home);
    let nowhere = || SecretError::Io {
        path: "~/.local/state".into(),
        source: io::Error::new(io::ErrorKind::NotFound, "neither XDG_STATE_HOME nor HOME is set"),
    };
    Ok(state.ok_or_else(nowhere)?.join("pype"))
}

/// Whole or not at all; of several that make it at once, the first wins.
fn make(folder: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    // Such files are for their owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", hex::encode(bytes))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => fs::File::open(folder)?.sync_all(),
        Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(lost) => Err(lost.error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_user_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state/pype");
        let hashes: Vec<String> = std::thread::scope(|scope| {
            let hash = || Key::in_folder(&state).expect("it is made").hash("hunter2");
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(hash)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(hashes.iter().all(|hash| *hash == hashes[0] && hash.len() == 64), "{hashes:?}");
        let mode = fs::metadata(state.join(FILE)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = Key::in_folder(folder.path()).expect("another is made");
        assert_ne!(other.hash("hunter2"), hashes[0]);
        fs::set_permissions(state.join(FILE), fs::Permissions::from_mode(0o644)).expect("its mode is set");
        assert!(matches!(Key::in_folder(&state), Err(SecretError::Exposed { .. })));
    }

    #[test]
    fn the_hash_is_the_standard_one() {
        // Test case 2 of RFC 4231.
        let key = Key(Hmac::new_from_slice(b"Jefe").expect("of any length"));
        let expect = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(key.hash("what do ya want for nothing?"), expect);
    }
}
