//! Who may begin a handshake, judged by address and load, before any cryptography is done for them.
//!
//! ```text
//!            too many handshakes, or ──────────────────────────────► not now: its next packet asks again
//!            its address has had its share
//!   packet ─ much is going on, and the address is only a claim ────► prove it first (a retry, no state here)
//!            else ─────────────────────────────────────────────────► handshake
//! ```
//!
//! Claimed addresses get half of everything, so that whoever makes addresses up never starves those who
//! have one; addresses that were proven have a share each, so that none of them starves the others.
//! Time is an argument here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packfed_protocol::Timestamp;

use crate::config::ShellLimits;

/// What is done with somebody's first packet.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Shake hands; the place is held as long as this lives.
    Shake(Shaking),
    /// Have it prove its address first.
    Prove,
    /// Say nothing: whoever means it sends again.
    NotNow,
}

/// Whether an address is known to be the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Claimed,
    Proven,
}

#[derive(Clone, Debug)]
pub(super) struct Gate {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    shaking_max: usize,
    per_second: u64,
    per_second_per_address: u64,
    shaking: usize,
    all: Bucket,
    of: BTreeMap<IpAddr, Share>,
}

/// What a proven address has of the gate.
#[derive(Debug)]
struct Share {
    shaking: usize,
    bucket: Bucket,
}

/// A place among those that shake hands.
#[derive(Debug)]
pub(super) struct Shaking {
    inner: Arc<Mutex<Inner>>,
    proven: Option<IpAddr>,
}

impl Gate {
    pub(super) fn new(limits: &ShellLimits, now: Timestamp) -> Self {
        let (all, one) = (limits.handshakes_per_second.into(), limits.handshakes_per_second_per_address.into());
        let inner = Inner {
            shaking_max: usize::try_from(limits.handshakes_max).unwrap_or(usize::MAX),
            per_second: all,
            per_second_per_address: one,
            shaking: 0,
            all: Bucket::full(all, now),
            of: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    pub(super) fn judge(&self, ip: IpAddr, address: Address, now: Timestamp) -> Judgement {
        let ip = network(ip);
        let mut inner = lock(&self.inner);
        let rate = inner.per_second;
        let tokens = inner.all.tokens(rate, now);
        if inner.shaking >= inner.shaking_max || tokens == 0 {
            return Judgement::NotNow;
        }
        let busy = 2 * (inner.shaking + 1) > inner.shaking_max || 2 * tokens <= rate;
        let proven = match address {
            Address::Claimed if busy => return Judgement::Prove,
            Address::Claimed => None,
            Address::Proven if !inner.take_share(ip, now) => return Judgement::NotNow,
            Address::Proven => Some(ip),
        };
        inner.all.take();
        inner.shaking += 1;
        Judgement::Shake(Shaking { inner: Arc::clone(&self.inner), proven })
    }
}

impl Inner {
    fn take_share(&mut self, ip: IpAddr, now: Timestamp) -> bool {
        let (rate, shaking_max) = (self.per_second_per_address, (self.shaking_max / ADDRESS_SHARE).max(1));
        if self.of.len() >= ADDRESSES_MAX {
            self.of.retain(|_, share| share.shaking > 0 || share.bucket.tokens(rate, now) < rate);
        }
        if self.of.len() >= ADDRESSES_MAX && !self.of.contains_key(&ip) {
            return false;
        }
        let share = self.of.entry(ip).or_insert_with(|| Share { shaking: 0, bucket: Bucket::full(rate, now) });
        if share.shaking >= shaking_max || share.bucket.tokens(rate, now) == 0 {
            return false;
        }
        share.bucket.take();
        share.shaking += 1;
        true
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        inner.shaking -= 1;
        if let Some(share) = self.proven.and_then(|ip| inner.of.get_mut(&ip)) {
            share.shaking -= 1;
        }
    }
}

/// Tokens that come back at a rate; a second's worth at most.
#[derive(Debug)]
struct Bucket {
    thousandths: u64,
    at: Timestamp,
}

impl Bucket {
    fn full(per_second: u64, now: Timestamp) -> Self {
        Self { thousandths: 1000 * per_second, at: now }
    }

    /// Whole tokens that are there.
    fn tokens(&mut self, per_second: u64, now: Timestamp) -> u64 {
        let back = now.since(self.at).saturating_mul(per_second);
        self.thousandths = self.thousandths.saturating_add(back).min(1000 * per_second);
        self.at = now;
        self.thousandths / 1000
    }

    fn take(&mut self) {
        self.thousandths = self.thousandths.saturating_sub(1000);
    }
}

/// What one sender has at least: an IPv4 address, or the 2^64 addresses of an IPv6 network.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Nothing that is done under the lock panics half-way.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One proven address may hold this part of all handshakes at once.
const ADDRESS_SHARE: usize = 8;
/// Addresses whose share is known; with more that are busy, new ones wait.
const ADDRESSES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn gate(handshakes_max: u32, all: u32, one: u32) -> Gate {
        let limits = ShellLimits {
            handshakes_max,
            handshakes_per_second: all,
            handshakes_per_second_per_address: one,
            ..ShellLimits::default()
        };
        Gate::new(&limits, NOW)
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    /// How many of `n` attempts shake hands, and what the others are told.
    fn attempts(gate: &Gate, ip: IpAddr, address: Address, n: usize, now: Timestamp) -> (Vec<Shaking>, usize, usize) {
        let (mut shaking, mut prove, mut not_now) = (Vec::new(), 0, 0);
        for _ in 0..n {
            match gate.judge(ip, address, now) {
                Judgement::Shake(place) => shaking.push(place),
                Judgement::Prove => prove += 1,
                Judgement::NotNow => not_now += 1,
            }
        }
        (shaking, prove, not_now)
    }

    #[test]
    fn a_quiet_gate_lets_anybody_in() {
        assert!(matches!(gate(16, 16, 16).judge(ip(1), Address::Claimed, NOW), Judgement::Shake(_)));
    }

    #[test]
    fn made_up_addresses_hold_half_of_the_places_and_the_rest_is_for_proven_ones() {
        let gate = gate(16, 1000, 1000);
        let (held, prove, _) = attempts(&gate, ip(1), Address::Claimed, 100, NOW);
        assert_eq!((held.len(), prove), (8, 92));
        assert!(matches!(gate.judge(ip(2), Address::Proven, NOW), Judgement::Shake(_)));
    }

    #[test]
    fn made_up_addresses_take_half_of_the_rate() {
        let gate = gate(1000, 100, 100);
        let mut taken = 0;
        for _ in 0..1000 {
            // Every handshake is over at once.
            taken += attempts(&gate, ip(1), Address::Claimed, 1, NOW).0.len();
        }
        assert_eq!(taken, 50);
        assert!(matches!(gate.judge(ip(2), Address::Proven, NOW), Judgement::Shake(_)));
    }

    #[test]
    fn one_address_holds_its_part_of_the_places_and_no_more() {
        let gate = gate(16, 1000, 1000);
        let (held, _, not_now) = attempts(&gate, ip(1), Address::Proven, 100, NOW);
        assert_eq!((held.len(), not_now), (2, 98));
        assert!(matches!(gate.judge(ip(2), Address::Proven, NOW), Judgement::Shake(_)));
        drop(held);
        assert_eq!(attempts(&gate, ip(1), Address::Proven, 100, NOW).0.len(), 2);
    }

    #[test]
    fn one_address_shakes_hands_at_its_rate() {
        let gate = gate(1000, 1000, 10);
        let count = |now| (0..100).map(|_| attempts(&gate, ip(1), Address::Proven, 1, now).0.len()).sum::<usize>();
        assert_eq!((count(NOW), count(NOW), count(NOW.plus(500)), count(NOW.plus(60_000))), (10, 0, 5, 10));
    }

    #[test]
    fn all_addresses_together_shake_hands_at_the_rate_of_all() {
        let gate = gate(1000, 20, 10);
        let taken: usize = (1..=50).map(|n| attempts(&gate, ip(n), Address::Proven, 1, NOW).0.len()).sum();
        assert_eq!(taken, 20);
    }

    #[test]
    fn an_ipv6_network_is_one_sender() {
        let gate = gate(16, 1000, 1000);
        let of = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        let held: Vec<_> = (0..100).flat_map(|n| attempts(&gate, of(n), Address::Proven, 1, NOW).0).collect();
        assert_eq!(held.len(), 2);
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0001]);
        assert_eq!(network(mapped), ip(1));
    }

    #[test]
    fn addresses_that_have_been_quiet_are_forgotten() {
        let gate = gate(1 << 20, 1 << 20, 10);
        for n in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            drop(gate.judge(Ipv4Addr::from_bits(n).into(), Address::Proven, NOW.plus(u64::from(n))));
        }
        assert!(lock(&gate.inner).of.len() <= ADDRESSES_MAX);
        assert!(matches!(gate.judge(ip(1), Address::Proven, NOW.plus(10_000)), Judgement::Shake(_)));
    }
}
