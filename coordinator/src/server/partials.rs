//! What has come of updates that were broken off, so that their workers go on where they stopped.
//!
//! One prefix a worker, within a bound on the bytes of all and for a bounded time; what is over either
//! goes, the oldest first. A prefix that is being added to belongs to one stream at a time: a worker's
//! next stream waits for the one before to let go, which it does when its connection is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use packfed_protocol::{PayloadId, Prefix, Timestamp, WorkerId};
use tokio::sync::OwnedMutexGuard;

use super::now;

type Slot = Arc<tokio::sync::Mutex<Option<Prefix>>>;

pub(super) struct Partials {
    bytes_max: u64,
    keep_ms: u64,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    of: BTreeMap<WorkerId, Entry>,
    /// Those of which something is kept, the oldest first.
    order: BTreeSet<(Timestamp, WorkerId)>,
    /// Sum of what is kept.
    bytes: u64,
}

struct Entry {
    slot: Slot,
    /// Bytes that are kept while nobody adds to them; 0 while somebody does.
    kept: u64,
    since: Timestamp,
}

/// A worker's prefix while a stream adds to it. Dropped half-way, for whatever reason, it is kept.
pub(super) struct Arriving<'a> {
    worker: WorkerId,
    slot: OwnedMutexGuard<Option<Prefix>>,
    partials: &'a Partials,
}

impl Partials {
    pub(super) fn new(bytes_max: u64, keep_ms: u64) -> Self {
        Self { bytes_max, keep_ms, entries: Mutex::default() }
    }

    /// What is there of a worker's payload: a prefix of exactly this one, or nothing.
    pub(super) async fn take_up(&self, worker: WorkerId, id: PayloadId) -> Arriving<'_> {
        let slot = self.with(|entries| {
            let entry = Entry { slot: Slot::default(), kept: 0, since: Timestamp(0) };
            Arc::clone(&entries.of.entry(worker).or_insert(entry).slot)
        });
        let mut slot = slot.lock_owned().await;
        self.with(|entries| entries.settle(worker, 0, now()));
        if !slot.as_ref().is_some_and(|prefix| *prefix.id() == id) {
            *slot = Some(Prefix::new(id));
        }
        Arriving { worker, slot, partials: self }
    }

    fn let_go(&self, worker: WorkerId, prefix: Option<&Prefix>, now: Timestamp) {
        let kept = prefix.map_or(0, Prefix::offset);
        self.with(|entries| {
            entries.settle(worker, kept, now);
            entries.forget_unused(worker);
            entries.shrink(self.bytes_max, self.keep_ms, now);
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        // Nothing that is done under the lock panics half-way.
        change(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn settle(&mut self, worker: WorkerId, kept: u64, now: Timestamp) {
        let Some(entry) = self.of.get_mut(&worker) else { return };
        self.bytes = self.bytes - entry.kept + kept;
        self.order.remove(&(entry.since, worker));
        (entry.kept, entry.since) = (kept, now);
        if kept > 0 {
            self.order.insert((now, worker));
        }
    }

    /// Forgets an entry that holds nothing and that nobody but the one who lets go has.
    fn forget_unused(&mut self, worker: WorkerId) {
        let unused = |entry: &Entry| entry.kept == 0 && Arc::strong_count(&entry.slot) <= 2;
        if self.of.get(&worker).is_some_and(unused) {
            self.of.remove(&worker);
        }
    }

    /// Forgets what is too old, and the oldest of what is too much.
    fn shrink(&mut self, bytes_max: u64, keep_ms: u64, now: Timestamp) {
        while let Some(&(since, worker)) = self.order.first() {
            if self.bytes <= bytes_max && now.since(since) <= keep_ms {
                return;
            }
            self.settle(worker, 0, now);
            self.of.remove(&worker);
        }
    }
}

impl Arriving<'_> {
    /// What is there.
    pub(super) fn prefix(&mut self) -> &mut Prefix {
        self.slot.as_mut().expect("it is taken out at the end alone")
    }

    /// All of it.
    pub(super) fn into_prefix(mut self) -> Prefix {
        self.slot.take().expect("it is taken out at the end alone")
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if let Some(prefix) = self.slot.as_mut() {
            prefix.shrink();
        }
        self.partials.let_go(self.worker, self.slot.as_ref(), now());
    }
}

#[cfg(test)]
mod tests {
    use packfed_protocol::Digest;

    use super::*;

    const A: WorkerId = WorkerId([1; 32]);
    const B: WorkerId = WorkerId([2; 32]);
    const C: WorkerId = WorkerId([3; 32]);

    fn id(n: u8) -> PayloadId {
        PayloadId { digest: Digest([n; 32]), bytes: 100 }
    }

    /// Adds bytes to a worker's prefix and breaks off; says where it went on.
    async fn add(partials: &Partials, worker: WorkerId, bytes: usize) -> u64 {
        let mut arriving = partials.take_up(worker, id(worker.0[0])).await;
        let offset = arriving.prefix().offset();
        arriving.prefix().push(&vec![0; bytes]).unwrap();
        offset
    }

    #[tokio::test]
    async fn what_was_broken_off_is_gone_on_with() {
        let partials = Partials::new(1000, 60_000);
        assert_eq!(add(&partials, A, 30).await, 0);
        assert_eq!(add(&partials, A, 30).await, 30);
        assert_eq!(partials.take_up(A, id(9)).await.prefix().offset(), 0, "another payload begins anew");
        assert_eq!(add(&partials, A, 30).await, 0, "and takes the place of the one before");
    }

    #[tokio::test]
    async fn beyond_the_bound_the_oldest_goes() {
        let partials = Partials::new(100, 60_000);
        for worker in [A, B] {
            add(&partials, worker, 40).await;
            // The clock has to tell them apart.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        add(&partials, C, 30).await;
        assert_eq!(partials.with(|entries| entries.bytes), 70);
        assert_eq!(add(&partials, B, 0).await, 40);
        assert_eq!(add(&partials, C, 0).await, 30);
        assert_eq!(add(&partials, A, 0).await, 0);
    }

    #[tokio::test]
    async fn nothing_is_kept_for_longer_than_its_time() {
        let partials = Partials::new(1000, 10);
        add(&partials, A, 40).await;
        let later = now().plus(11);
        partials.with(|entries| entries.shrink(1000, 10, later));
        assert_eq!(partials.with(|entries| (entries.bytes, entries.of.len(), entries.order.len())), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_stream_waits_for_the_one_before_to_let_go() {
        let partials = Partials::new(1000, 60_000);
        let mut first = partials.take_up(A, id(1)).await;
        let second = partials.take_up(A, id(1));
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("two streams add to one prefix"),
            () = tokio::task::yield_now() => {}
        }
        first.prefix().push(&[0; 7]).unwrap();
        drop(first);
        assert_eq!(second.await.prefix().offset(), 7);
    }

    #[tokio::test]
    async fn a_whole_payload_leaves_nothing_behind() {
        let partials = Partials::new(1000, 60_000);
        add(&partials, A, 40).await;
        drop(partials.take_up(A, id(1)).await.into_prefix());
        assert_eq!(partials.with(|entries| (entries.bytes, entries.of.len(), entries.order.len())), (0, 0, 0));
    }
}
