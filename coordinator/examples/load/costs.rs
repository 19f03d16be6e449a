//! What the steps of taking an update cost, one at a time on one core.
//!
//! Each is what the coordinator does, over the same updates: opening the packets' AEAD, proving the signature,
//! gathering and hashing the words as they come in packets, storing the frame in a group, adding the words to the sum.

use std::path::Path;

use anyhow::{Context, Result};
use packfed_codec::Tally;
use packfed_coordinator::event::Write;
use packfed_coordinator::plan::RunPlan;
use packfed_coordinator::redb_store::RedbStore;
use packfed_coordinator::registry::Registry;
use packfed_coordinator::store::Store;
use packfed_protocol::{Prefix, Round, Signed, UpdateOffer};
use rustls::crypto::cipher::{AeadKey, Iv};
use serde::Serialize;

use crate::usage::own_cpu_time;

/// Milliseconds of CPU time an update.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Costs {
    /// AES-256-GCM, which both sides prefer, over packets as long as the MTU.
    pub(crate) aead: f64,
    /// Ed25519, by the strict rules.
    pub(crate) signature: f64,
    /// BLAKE3, and the copy into one buffer.
    pub(crate) hash: f64,
    /// A durable group in the store, and its removal after the round.
    pub(crate) journal: f64,
    /// Adding the words to the sum.
    pub(crate) fold: f64,
}

impl Costs {
    /// Over updates of different workers, stored as one group in a new store in this folder.
    pub(crate) fn measure(updates: &[Signed], plan: &RunPlan, folder: &Path) -> Result<Self> {
        Ok(Self {
            aead: aead(updates)?,
            signature: signature(updates)?,
            hash: hash(updates)?,
            journal: journal(updates, folder)?,
            fold: fold(updates, plan)?,
        })
    }
}

fn aead(updates: &[Signed]) -> Result<f64> {
    let provider = rustls::crypto::ring::default_provider();
    let suite = provider.cipher_suites.first().and_then(|suite| suite.tls13()).context("no suite of TLS 1.3")?;
    let suite = suite.quic_suite().context("the first suite is not for QUIC")?;
    let key = suite.quic.packet_key(AeadKey::from([7; 32]), Iv::from([9; 12]));
    let header = [3; PACKET_HEADER_BYTES];
    let mut sealed = vec![5; PACKET_BYTES];
    let tag = key.encrypt_in_place(1, &header, &mut sealed)?;
    sealed.extend_from_slice(tag.as_ref());
    let mut packet = sealed.clone();
    per_update(updates, |update| {
        for _ in 0..update.payload.len().div_ceil(PACKET_BYTES) {
            packet.copy_from_slice(&sealed);
            key.decrypt_in_place(1, &header, &mut packet)?;
        }
        Ok(())
    })
}

fn signature(updates: &[Signed]) -> Result<f64> {
    per_update(updates, |update| {
        offer(update).prove(&update.header.worker)?;
        Ok(())
    })
}

fn hash(updates: &[Signed]) -> Result<f64> {
    per_update(updates, |update| {
        let mut prefix = Prefix::new(offer(update).payload());
        update.payload.chunks(PACKET_BYTES).try_for_each(|piece| prefix.push(piece))?;
        prefix.finish()?;
        Ok(())
    })
}

fn journal(updates: &[Signed], folder: &Path) -> Result<f64> {
    let mut store = RedbStore::create(&folder.join("costs.redb"), &Registry::default())?;
    let verified: Vec<_> =
        updates.iter().map(|update| update.clone().verify(&update.header.worker)).collect::<Result<_, _>>()?;
    let mut round = Round(1);
    let took = per_call(|| {
        let first = round.0;
        for _ in 0..GROUPS {
            let accept = |update: &packfed_protocol::Verified| {
                let (worker, frame) = (update.header().worker, update.frame());
                Write::Accept { round, worker, frame }
            };
            store.write_all(&verified.iter().map(accept).collect::<Vec<_>>())?;
            round = round.next();
        }
        let ended: Vec<_> = (first..round.0).map(|round| Write::Abandon { round: Round(round) }).collect();
        Ok(store.write_all(&ended)?)
    })?;
    Ok(took / (GROUPS * updates.len()) as f64)
}

fn fold(updates: &[Signed], plan: &RunPlan) -> Result<f64> {
    let mut tally = Tally::new(plan.layout(), plan.raw().profile);
    per_update(updates, |update| Ok(tally.add(&update.payload, update.header.examples)?))
}

fn offer(update: &Signed) -> UpdateOffer {
    UpdateOffer { header: update.header.clone(), signature: update.signature }
}

fn per_update(updates: &[Signed], mut body: impl FnMut(&Signed) -> Result<()>) -> Result<f64> {
    Ok(per_call(|| updates.iter().try_for_each(&mut body))? / updates.len() as f64)
}

/// Milliseconds of CPU time, over as many calls as the clock needs.
fn per_call(mut body: impl FnMut() -> Result<()>) -> Result<f64> {
    let (began, mut calls) = (own_cpu_time()?, 0);
    loop {
        body()?;
        calls += 1;
        let taken = own_cpu_time()?.saturating_sub(began).as_secs_f64() * 1e3;
        if taken >= TAKEN_MS_MIN {
            return Ok(taken / f64::from(calls));
        }
    }
}

/// Bytes of a stream in a packet: what is left of a datagram of 1,452 bytes.
const PACKET_BYTES: usize = 1424;
/// A short header with an id of 8 bytes and a packet number of 2.
const PACKET_HEADER_BYTES: usize = 11;
/// Groups that are stored before their round ends.
const GROUPS: usize = 8;
/// The clock's unit is 10 ms.
const TAKEN_MS_MIN: f64 = 500.0;
