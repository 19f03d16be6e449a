//! The Ed25519 key that is an identity.
//!
//! The same key proves possession in a TLS handshake and signs updates; the two cannot be
//! confused, because both say what they are for in what they sign. The secret never leaves this
//! module but into a key file. Who is admitted is not known here.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::id::{HexError, WorkerId, parse_hex};

/// A worker's or a coordinator's secret key. `Debug` shows the public half only.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity of this seed: the same seed is the same key, everywhere.
    pub fn from_seed(seed: [u8; 32]) -> Identity {
        Identity { key: SigningKey::from_bytes(&seed) }
    }

    /// A fresh identity from the operating system's generator.
    ///
    /// # Errors
    /// [`IdentityError::Random`] if the operating system has no randomness to give.
    pub fn generate() -> Result<Identity, IdentityError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| IdentityError::Random { reason: error.to_string() })?;
        Ok(Identity::from_seed(seed))
    }

    /// Reads a key file: the seed as 64 hex digits, white space around them ignored.
    ///
    /// # Errors
    /// [`IdentityError::Read`] if the file cannot be read, [`IdentityError::Content`] if it holds
    /// anything else; both name the path.
    pub fn load(path: &Path) -> Result<Identity, IdentityError> {
        let text = fs::read_to_string(path)
            .map_err(|error| IdentityError::Read { path: path.to_owned(), kind: error.kind() })?;
        let mut seed = [0; 32];
        parse_hex("seed", text.trim(), &mut seed)
            .map_err(|reason| IdentityError::Content { path: path.to_owned(), reason })?;
        Ok(Identity::from_seed(seed))
    }

    /// Writes a new key file that only its owner may read (mode 0600).
    ///
    /// # Errors
    /// [`IdentityError::Write`] if the file cannot be written, among others because one is there:
    /// a key is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        write_new(path, &hex::encode(self.key.as_bytes()))
            .map_err(|error| IdentityError::Write { path: path.to_owned(), kind: error.kind() })
    }

    /// The public half: what everybody knows this identity by.
    pub fn id(&self) -> WorkerId {
        WorkerId(self.key.verifying_key().to_bytes())
    }

    /// A secret of its own for one purpose, from which this one does not follow.
    #[cfg(feature = "quic")]
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.as_bytes())
    }

    /// Signs a message that begins by saying what it is for.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, secret ..)", self.id())
    }
}

/// Whether `signature` is `signer`'s over `message`, by the strict rules: no small-order key, no
/// second form of a valid signature.
pub(crate) fn is_signed_by(signer: &WorkerId, message: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&signer.0) else {
        return false;
    };
    key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
}

fn write_new(path: &Path, seed: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, KEY_FILE_MODE);
    let mut file = options.open(path)?;
    writeln!(file, "{seed}")?;
    file.sync_all()
}

/// Why there is no identity, or none on disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {reason}")]
    Random {
        /// What it said.
        reason: String,
    },
    /// The key file cannot be read.
    #[error("cannot read key file {}: {kind}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The key file holds something else than a seed.
    #[error("key file {}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; the text itself is never shown.
        reason: HexError,
    },
    /// The key file cannot be written, or is already there.
    #[error("cannot write key file {}: {kind}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
}

#[cfg(unix)]
const KEY_FILE_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_identity_loads_as_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let identity = Identity::generate().unwrap();
        identity.save(&path).unwrap();
        assert_eq!(Identity::load(&path).unwrap().id(), identity.id());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_a_key_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Identity::from_seed([1; 32]).save(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = Identity::from_seed([1; 32]);
        first.save(&path).unwrap();

        let error = Identity::from_seed([2; 32]).save(&path).unwrap_err();
        let kind = io::ErrorKind::AlreadyExists;
        assert_eq!(error, IdentityError::Write { path: path.clone(), kind });
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert_eq!(Identity::load(&path).unwrap().id(), first.id());
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere");
        let error = Identity::load(&path).unwrap_err();
        let kind = io::ErrorKind::NotFound;
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert_eq!(error, IdentityError::Read { path, kind });
    }

    #[test]
    fn a_cut_key_file_is_named_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "c0ffee\n").unwrap();
        let text = Identity::load(&path).unwrap_err().to_string();
        assert!(text.ends_with("seed has 6 hex digits, needs 64") && !text.contains("c0ffee"), "{text}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let seed = [0x5a; 32];
        let identity = Identity::from_seed(seed);
        let text = format!("{identity:?} {identity:#?}");
        assert!(text.contains(&identity.id().to_string()));
        assert!(!text.contains("5a5a") && !text.contains("90, 90"), "{text}");
    }

    #[test]
    fn a_seed_is_the_same_key_everywhere() {
        // RFC 8032, section 7.1, test 2.
        let seed = *b"\x4c\xcd\x08\x9b\x28\xff\x96\xda\x9d\xb6\xc3\x46\xec\x11\x4e\x0f\
                      \x5b\x8a\x31\x9f\x35\xab\xa6\x24\xda\x8c\xf6\xed\x4f\xb8\xa6\xfb";
        let identity = Identity::from_seed(seed);
        assert_eq!(identity.id().to_string(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert!(hex::encode(identity.sign(&[0x72])).starts_with("92a009a9f0d4cab8720e820b5f642540"));
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The key is the neutral element: R = neutral, s = 0 satisfies the plain equation for
        // every message, so a lax check would let anyone be this worker.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&neutral);

        let lax = VerifyingKey::from_bytes(&neutral).unwrap();
        ed25519_dalek::Verifier::verify(&lax, b"any", &Signature::from_bytes(&signature)).unwrap();
        assert!(!is_signed_by(&WorkerId(neutral), b"any", &signature));
    }
}
