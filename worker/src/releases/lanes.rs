//! Private lanes when the global model becomes another one: kept where they still stand on the base model, else set
//! aside under another name. They are never removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use packfed_codec::Layout;
use packfed_protocol::Digest;

use crate::export::{AdapterFileError, read_adapter};

/// What became of private lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// There are none.
    None,
    /// They stand on the base model as before.
    Kept,
    /// They do not, and lie there now.
    SetAside(PathBuf),
}

/// Keeps the private lanes in a file if they are over the base model with this digest and `fits` has a place for every
/// layer; else gives the file another name, with the number of the release that now runs.
///
/// # Errors
/// If the file can neither be read nor be given another name.
pub fn keep_or_set_aside(
    file: &Path,
    base: Digest,
    fits: &dyn Fn(&Arc<Layout>) -> Result<(), String>,
    release: u64,
) -> io::Result<Lanes> {
    let why = match read_adapter(file) {
        Err(AdapterFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(Lanes::None),
        Err(AdapterFileError::Io { source, .. }) => return Err(source),
        Err(error @ AdapterFileError::Content { .. }) => error.to_string(),
        Ok(adapter) if adapter.base().0 != base.0 => {
            format!("they are for a base model with digest {}, the release is for {base}", adapter.base())
        }
        Ok(adapter) => match fits(adapter.state().layout()) {
            Ok(()) => return Ok(Lanes::Kept),
            Err(why) => why,
        },
    };
    let aside = aside(file, release);
    fs::rename(file, &aside)?;
    tracing::warn!(
        file = %file.display(), aside = %aside.display(), release, why,
        "the private lanes do not fit and are set aside; `worker personalize` trains new ones"
    );
    Ok(Lanes::SetAside(aside))
}

/// A name that nothing has.
fn aside(file: &Path, release: u64) -> PathBuf {
    let named = |suffix: String| {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".set-aside-{release}{suffix}"));
        file.with_file_name(name)
    };
    let names = std::iter::once(String::new()).chain((2..u32::MAX).map(|n| format!("-{n}")));
    let mut names = names.map(named);
    names.find(|path| !path.exists()).unwrap_or_else(|| named(String::new()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use packfed_codec::{Adapter, BaseDigest, LayerSpec, Seed, State};

    use super::*;
    use crate::export::{Existing, write_adapter};

    const BASE: Digest = Digest([7; 32]);

    fn lanes(file: &Path, base: Digest) {
        let seed = Seed::from_number(5);
        let spec = LayerSpec { name: "a".into(), rows: 9, cols: 14, block: 8, residual: 5, gain_exponent: 4 };
        let state = State::zero(Arc::new(Layout::new(&seed, vec![spec]).unwrap()));
        let adapter = Adapter::new(BaseDigest(base.0), seed, state, BTreeMap::new()).unwrap();
        write_adapter(&adapter, file, Existing::Replaced).unwrap();
    }

    #[test]
    fn private_lanes_stay_where_they_fit_and_are_set_aside_where_they_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("personal.packfed");
        let fits = |_: &Arc<Layout>| Ok(());
        assert_eq!(keep_or_set_aside(&file, BASE, &fits, 3).unwrap(), Lanes::None);
        lanes(&file, BASE);
        let before = fs::read(&file).unwrap();
        assert_eq!(keep_or_set_aside(&file, BASE, &fits, 3).unwrap(), Lanes::Kept);
        assert_eq!(fs::read(&file).unwrap(), before);
        let aside = folder.path().join("personal.packfed.set-aside-3");
        let lost = keep_or_set_aside(&file, Digest([8; 32]), &fits, 3).unwrap();
        assert_eq!(lost, Lanes::SetAside(aside.clone()), "another base model");
        assert_eq!((fs::read(&aside).unwrap(), file.exists()), (before, false));
        lanes(&file, BASE);
        let unfit = |_: &Arc<Layout>| Err("there is no matrix a".to_owned());
        let lost = keep_or_set_aside(&file, BASE, &unfit, 3).unwrap();
        assert_eq!(
            lost,
            Lanes::SetAside(folder.path().join("personal.packfed.set-aside-3-2")),
            "nothing is overwritten"
        );
        fs::write(&file, "no adapter").unwrap();
        assert!(matches!(keep_or_set_aside(&file, BASE, &fits, 4).unwrap(), Lanes::SetAside(_)));
    }
}
