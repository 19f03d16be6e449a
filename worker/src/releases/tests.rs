//! The folder on a disk whose process is killed, or whose power fails, at every step; and on the machine's own files.

use std::collections::BTreeMap;
use std::fs;

use packfed_protocol::{Digest, Identity, ReleaseOutcome};

use super::*;
use crate::follower::Trying;
use crate::follower::tests::{coordinator, held, manifest, payload, pinned};

fn signed(number: u64) -> SignedRelease {
    SignedRelease::new(&coordinator(), manifest(number)).unwrap()
}

fn fits(_: &Arc<Layout>) -> Result<(), String> {
    Ok(())
}

/// A disk in memory; files keep their bytes under another name.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<World>>);

#[derive(Clone, Debug, Default)]
struct World {
    /// Bytes as they are read, and as they were last flushed.
    files: Vec<[Vec<u8>; 2]>,
    names: BTreeMap<PathBuf, usize>,
    flushed_names: BTreeMap<PathBuf, usize>,
    /// Steps that change something, since it began.
    steps: usize,
    killed_at: Option<usize>,
}

/// What is left when everything stops.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// The process was killed: what it has told the system stays.
    Told,
    /// The power failed: only what was flushed stays.
    Flushed,
    /// The power failed, and names were on the disk before their bytes.
    NamesFirst,
}

impl Memory {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// The disk as the next process finds it; that one is killed at a step of its own, or not.
    fn restarted(&self, left: Left, killed_at: Option<usize>) -> Self {
        let world = self.world();
        let (names, bytes) = match left {
            Left::Told => (&world.names, 0),
            Left::Flushed => (&world.flushed_names, 1),
            Left::NamesFirst => (&world.names, 1),
        };
        let files = world.files.iter().map(|file| [file[bytes].clone(), file[bytes].clone()]).collect();
        let (names, flushed_names) = (names.clone(), names.clone());
        Self(Arc::new(Mutex::new(World { files, names, flushed_names, steps: 0, killed_at })))
    }

    /// Does a step unless the process is dead; says whether it dies in it.
    fn step(&self) -> io::Result<(MutexGuard<'_, World>, bool)> {
        let mut world = self.world();
        world.steps += 1;
        let killed = world.killed_at.unwrap_or(usize::MAX);
        match world.steps {
            n if n > killed => Err(io::Error::other("the process is dead")),
            n => Ok((world, n == killed)),
        }
    }
}

impl Disk for Memory {
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let world = self.world();
        let index = *world.names.get(file).ok_or(io::ErrorKind::NotFound)?;
        Ok(world.files[index][0].clone())
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let (mut world, dies) = self.step()?;
        let next = world.files.len();
        let index = *world.names.entry(file.to_owned()).or_insert(next);
        if index == next {
            world.files.push([Vec::new(), Vec::new()]);
        }
        world.files[index][0] = bytes[..if dies { bytes.len() / 2 } else { bytes.len() }].to_vec();
        if dies { Err(io::Error::other("the process dies")) } else { Ok(()) }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let (mut world, _) = self.step()?;
        match world.names.get(path).copied() {
            Some(index) => world.files[index][1] = world.files[index][0].clone(),
            None => {
                let inside = |name: &PathBuf| name.parent() == Some(path);
                let mut flushed = world.flushed_names.clone();
                flushed.retain(|name, _| !inside(name));
                flushed
                    .extend(world.names.iter().filter(|(name, _)| inside(name)).map(|(name, at)| (name.clone(), *at)));
                world.flushed_names = flushed;
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut world, _) = self.step()?;
        let index = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to.to_owned(), index);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let (mut world, _) = self.step()?;
        world.names.remove(file).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.names.keys().filter(|name| name.parent() == Some(folder));
        Ok(inside.map(|name| name.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn make_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
}

fn releases(disk: Memory) -> Releases<Memory> {
    Releases::on(disk, "releases".into(), pinned())
}

/// What a worker that runs 2 after 1 saves while it goes over to 3.
fn swap(releases: &Releases<Memory>) -> Result<Standing, String> {
    let text = |error: ReleasesError| error.to_string();
    let standing = releases.open().map_err(text)?;
    releases.store(&signed(3), &Source::Whole(payload(3)), &fits).map_err(|error| format!("{error:?}"))?;
    let trying = Some(Trying { held: held(3), attempts: 1 });
    releases.save(&Standing { trying, ..standing.clone() }).map_err(text)?;
    let swapped = Standing { current: Some(held(3)), previous: standing.current, ..standing };
    releases.save(&swapped).map_err(text)?;
    Ok(swapped)
}

/// A disk of a worker that runs 2 after 1.
fn disk() -> Memory {
    let disk = Memory::default();
    let releases = releases(disk.clone());
    releases.open().unwrap();
    for number in [1, 2] {
        releases.store(&signed(number), &Source::Whole(payload(number)), &fits).unwrap();
    }
    releases.save(&Standing { current: Some(held(2)), previous: Some(held(1)), ..Standing::default() }).unwrap();
    disk.restarted(Left::Flushed, None)
}

/// That what a folder names is there and whole, and nothing else is there.
fn assert_whole(releases: &Releases<Memory>, standing: &Standing, context: &str) {
    let current = standing.current.map(|held| held.release.number);
    assert!(matches!(current, Some(2 | 3)), "{context}: {current:?}");
    for held in standing.held() {
        releases.read(held.release).unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let before = if current == Some(3) { 2 } else { 1 };
    assert_eq!(standing.previous, Some(held(before)), "{context}");
    let files: BTreeSet<u64> = standing.held().map(|held| held.release.number).collect();
    assert_eq!(releases.disk.world().names.len(), 1 + 2 * files.len(), "{context}: {:?}", releases.disk.world().names);
}

#[test]
fn a_swap_that_is_killed_at_any_step_leaves_the_old_release_or_the_new_one_whole() {
    let whole = disk();
    let last = swap(&releases(whole.clone())).unwrap();
    let steps = whole.world().steps;
    assert!(steps > 15, "{steps}");
    for left in [Left::Told, Left::Flushed, Left::NamesFirst] {
        let mut seen = BTreeSet::new();
        for killed_at in 1..=steps + 1 {
            let context = format!("{left:?} at step {killed_at} of {steps}");
            let killed = disk().restarted(Left::Told, Some(killed_at));
            let swapped = swap(&releases(killed.clone()));
            let found = releases(killed.restarted(left, None));
            let standing = found.open().unwrap();
            assert_whole(&found, &standing, &context);
            // What was said to be done is done.
            assert!(swapped.is_err() || standing == last, "{context}");
            seen.insert(standing.current.map(|held| held.release.number));
            assert_eq!(swap(&found).unwrap().current, Some(held(3)), "{context}: it goes on");
        }
        assert_eq!(seen.len(), 2, "{left:?}: the swap is somewhere in between");
    }
}

#[test]
fn a_process_that_is_killed_while_it_opens_the_folder_loses_nothing_either() {
    for killed_at in 1..25 {
        let killed = disk().restarted(Left::Told, Some(killed_at));
        let _ = swap(&releases(killed.clone()));
        for again_at in 1..8 {
            let again = killed.restarted(Left::Told, Some(again_at));
            let _ = releases(again.clone()).open();
            for left in [Left::Told, Left::Flushed, Left::NamesFirst] {
                let found = releases(again.restarted(left, None));
                let standing = found.open().unwrap();
                assert_whole(&found, &standing, &format!("{left:?} at step {killed_at}, then {again_at}"));
            }
        }
    }
}

/// A worker of this machine's files that runs 2 after 1.
fn folder() -> (tempfile::TempDir, Releases) {
    let folder = tempfile::tempdir().unwrap();
    let releases = Releases::at(folder.path().join("releases"), pinned());
    assert_eq!(releases.open().unwrap(), Standing::default());
    for number in [1, 2] {
        let source = Source::Whole(payload(number));
        assert_eq!(releases.store(&signed(number), &source, &fits), Ok(held(number)));
    }
    releases.save(&Standing { current: Some(held(2)), previous: Some(held(1)), ..Standing::default() }).unwrap();
    (folder, releases)
}

/// Changes the last byte but one of a file.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_release_that_is_damaged_falls_back_to_the_one_before_and_that_to_the_base_model() {
    let (_folder, releases) = folder();
    assert_eq!(releases.current().unwrap().unwrap().manifest, manifest(2));
    damage(&releases.adapter_path(&manifest(2)));
    assert_eq!(releases.current().unwrap().unwrap().manifest, manifest(1));
    let standing = releases.open().unwrap();
    assert_eq!((standing.current, standing.previous), (Some(held(1)), None));
    assert_eq!(releases.open().unwrap(), standing, "it stays like that");
    damage(&releases.manifest_path(1));
    assert_eq!(releases.open().unwrap(), Standing::default());
    assert!(releases.current().unwrap().is_none());
}

#[test]
fn a_standing_that_cannot_be_understood_is_as_good_as_none() {
    let (_folder, releases) = folder();
    fs::write(releases.folder.join(STANDING), "{").unwrap();
    assert_eq!(releases.open().unwrap(), Standing::default());
    assert_eq!(fs::read_dir(releases.folder.join(MODELS)).unwrap().count(), 0, "what nothing names is removed");
}

#[test]
fn releases_of_another_enrolment_are_not_used() {
    let (folder, _) = folder();
    let path = folder.path().join("releases");
    let other = |change: &dyn Fn(&mut Pinned)| {
        let mut pinned = pinned();
        change(&mut pinned);
        Releases::at(path.clone(), pinned).current().unwrap()
    };
    assert!(other(&|_| ()).is_some());
    assert!(other(&|pinned| pinned.coordinator = Identity::from_seed([6; 32]).id()).is_none());
    assert!(other(&|pinned| pinned.run.0[0] ^= 1).is_none());
    assert!(other(&|pinned| pinned.base = Digest([1; 32])).is_none());
}

#[test]
fn what_no_standing_names_is_removed_and_what_is_not_ours_stays() {
    let (_folder, releases) = folder();
    let coordinators = releases.folder.join("00000001.release");
    let notes = releases.folder.join("notes.signed");
    fs::write(&coordinators, "").unwrap();
    fs::write(&notes, "").unwrap();
    let standing = swapped_to_3(&releases);
    assert!(coordinators.exists() && notes.exists());
    assert!(!releases.manifest_path(1).exists() && !releases.adapter_path(&manifest(1)).exists());
    assert!(standing.held().all(|held| releases.read(held.release).is_ok()));
}

fn swapped_to_3(releases: &Releases) -> Standing {
    releases.store(&signed(3), &Source::Whole(payload(3)), &fits).unwrap();
    let standing = releases.standing().unwrap();
    let swapped = Standing { current: Some(held(3)), previous: standing.current, ..standing };
    releases.save(&swapped).unwrap();
    swapped
}

#[test]
fn a_difference_is_stored_as_the_file_that_was_signed() {
    let (_folder, releases) = folder();
    let two = releases.read(held(2).release).unwrap().adapter;
    let three = follower::tests::adapter(3);
    let difference = packfed_protocol::Payload::new(packfed_codec::encode_catch_up(two.state(), three.state()));
    let source = Source::From(held(2).release, difference);
    assert_eq!(releases.store(&signed(3), &source, &fits), Ok(held(3)));
    assert_eq!(fs::read(releases.adapter_path(&manifest(3))).unwrap(), payload(3).into_vec());
}

#[test]
fn what_does_not_fit_the_base_model_is_refused_and_what_is_not_here_is_missing() {
    let (_folder, releases) = folder();
    let unfit = |_: &Arc<Layout>| Err("tensor w is missing".to_owned());
    let refused = releases.store(&signed(3), &Source::Whole(payload(3)), &unfit);
    let expected = Refusal::Unfit { number: 3, why: "tensor w is missing".into() };
    assert_eq!(refused, Err(NotStored::Refused(expected)));
    assert!(!releases.manifest_path(3).exists());
    assert!(matches!(releases.store(&signed(3), &Source::Folder, &fits), Err(NotStored::Missing(_))));
    assert_eq!(releases.store(&signed(2), &Source::Folder, &fits), Ok(held(2)));
}

#[test]
fn what_was_tried_outlives_the_process() {
    let (_folder, releases) = folder();
    let tried = packfed_protocol::Tried { release: held(2).release, outcome: ReleaseOutcome::Healthy };
    let standing = Standing { tried: Some(tried), why: Some("it is well".into()), ..releases.standing().unwrap() };
    releases.save(&standing).unwrap();
    assert_eq!(releases.open().unwrap(), standing);
}
