//! From what was fetched to the model that was signed: every digest of the manifest is found, or it is refused.

use packfed_codec::{Adapter, Profile, decode_catch_up};
use packfed_protocol::{Digest, Manifest};

use super::Refusal;

/// A release's model, and the bytes of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Unpacked {
    /// The model.
    pub adapter: Adapter,
    /// Its file.
    pub bytes: Vec<u8>,
}

/// Unpacks a body: the adapter's file whole, or what leads there from `over`.
///
/// # Errors
/// If it is not what was signed.
pub fn unpack(manifest: &Manifest, body: &[u8], over: Option<&Adapter>) -> Result<Unpacked, Refusal> {
    let bytes = match over {
        None => body.to_vec(),
        Some(over) => rebuild(manifest, body, over)?,
    };
    let adapter = read(manifest, &bytes)?;
    Ok(Unpacked { adapter, bytes })
}

/// A release's file.
///
/// # Errors
/// If it is not what was signed.
pub fn read(manifest: &Manifest, bytes: &[u8]) -> Result<Adapter, Refusal> {
    let number = manifest.number;
    let same = |what, found: Digest, signed: Digest| match found == signed {
        true => Ok(()),
        false => Err(Refusal::NotSigned { number, what, found, signed }),
    };
    same("adapter", Digest::of(bytes), manifest.adapter.digest)?;
    let adapter = Adapter::from_bytes(bytes).map_err(|source| Refusal::Adapter { number, source })?;
    let state = adapter.state();
    same("base", Digest(adapter.base().0), manifest.base)?;
    same("layout", Digest(state.layout().digest().0), manifest.layout)?;
    same("state", Digest(state.digest().0), manifest.state)?;
    Ok(adapter)
}

/// The file that a difference leads to.
fn rebuild(manifest: &Manifest, body: &[u8], over: &Adapter) -> Result<Vec<u8>, Refusal> {
    let number = manifest.number;
    let mut state = over.state().clone();
    // A difference of two releases is a sum, in which a profile has no say; a step of another profile leads elsewhere.
    decode_catch_up(&mut state, Profile::Plain, body).map_err(|source| Refusal::Difference { number, source })?;
    let (found, signed) = (Digest(state.digest().0), manifest.state);
    if found != signed {
        return Err(Refusal::NotSigned { number, what: "state", found, signed });
    }
    let adapter = Adapter::new(over.base(), *over.seed(), state, manifest.metrics.clone());
    Ok(adapter.map_err(|source| Refusal::Adapter { number, source })?.to_bytes())
}
