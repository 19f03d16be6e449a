//! The ledger's entries in their table.
//!
//! ```text
//!   1  worker                    labels
//!   2                            what operators changed of the run
//!   3  round, big-endian         a round that is over
//!   4  rollout, big-endian       a rollout
//!   5  rollout, then worker      who has reported
//! ```
//!
//! Numbers are big-endian in keys, so that they stand in their order. Each entry is sealed under its kind and key.

use packfed_protocol::{Round, WorkerId, wire};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TOKENS;
use super::seal::{opened, sealed};
use crate::ledger::{Ledger, Note, oldest_kept};

const LEDGER: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("ledger");
/// Kind and key.
type Key = (u8, &'static [u8]);

const LABELS: u8 = 1;
const CONDUCT: u8 = 2;
const PAST: u8 = 3;
const ROLLOUT: u8 = 4;
const REPORTED: u8 = 5;

/// Makes the table.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(LEDGER)?;
    Ok(())
}

/// Puts one entry.
pub(super) fn put(transaction: &WriteTransaction, note: &Note) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(LEDGER)?;
    let mut insert = |kind, key: &[u8], bytes: &[u8]| {
        table.insert((kind, key), sealed("ledger", &name(kind, key), bytes).as_slice()).map(|_| ())
    };
    match note {
        Note::Labels { worker, labels } => insert(LABELS, &worker.0, &wire::to_bytes(labels))?,
        Note::Tokens(tokens) => {
            let mut table = transaction.open_table(TOKENS)?;
            for token in tokens {
                table.insert(&token.0, ())?;
            }
        }
        Note::Conduct(conduct) => insert(CONDUCT, &[], &wire::to_bytes(conduct))?,
        Note::Past(past) => {
            insert(PAST, &number(past.round.0), &wire::to_bytes(past))?;
            let oldest = number(oldest_kept(past.round).0);
            table.retain_in((PAST, [].as_slice())..(PAST, oldest.as_slice()), |_, _| false)?;
        }
        Note::Rollout(record) => insert(ROLLOUT, &number(record.number), &wire::to_bytes(&**record))?,
        Note::Reported { rollout, worker } => insert(REPORTED, &[&number(*rollout)[..], &worker.0].concat(), &[])?,
        Note::Forget { rollout } => {
            let (first, last) = (number(*rollout), number(rollout.saturating_add(1)));
            table.retain_in((REPORTED, first.as_slice())..(REPORTED, last.as_slice()), |_, _| false)?;
        }
    }
    Ok(())
}

/// An entry as it was read, unchecked.
pub(super) struct Entry {
    kind: u8,
    key: Vec<u8>,
    sealed: Vec<u8>,
}

/// Reads every entry.
pub(super) fn read(transaction: &ReadTransaction) -> Result<Vec<Entry>, redb::Error> {
    let mut entries = Vec::new();
    for entry in transaction.open_table(LEDGER)?.iter()? {
        let (key, sealed) = entry?;
        let (kind, key) = key.value();
        entries.push(Entry { kind, key: key.to_vec(), sealed: sealed.value().to_vec() });
    }
    Ok(entries)
}

/// The ledger of these entries.
pub(super) fn check(entries: Vec<Entry>) -> Result<Ledger, String> {
    let mut ledger = Ledger::default();
    for Entry { kind, key, sealed } in entries {
        let bytes = opened("ledger", &name(kind, &key), &sealed)?;
        let note = match kind {
            LABELS => Note::Labels { worker: WorkerId(exactly(&key)?), labels: value(bytes)? },
            CONDUCT => Note::Conduct(value(bytes)?),
            PAST => Note::Past(value(bytes)?),
            ROLLOUT => Note::Rollout(Box::new(value(bytes)?)),
            REPORTED => {
                let (rollout, worker) = key.split_at_checked(8).ok_or_else(|| short(&key))?;
                Note::Reported { rollout: numbered(exactly(rollout)?), worker: WorkerId(exactly(worker)?) }
            }
            kind => return Err(format!("no entry is of kind {kind}")),
        };
        let stands = match &note {
            Note::Past(past) => number(past.round.0) == *key,
            Note::Rollout(record) => number(record.number) == *key,
            Note::Labels { .. } | Note::Conduct(_) | Note::Reported { .. } | Note::Tokens(_) | Note::Forget { .. } => {
                true
            }
        };
        if !stands {
            return Err(format!("an entry of kind {kind} stands in another's place"));
        }
        ledger.note(&note);
    }
    // Rounds beyond those that are kept were forgotten as they came.
    if let Some((&latest, _)) = ledger.past.last_key_value() {
        ledger.past = ledger.past.split_off(&oldest_kept(Round(latest.0)));
    }
    Ok(ledger)
}

fn value<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, String> {
    wire::from_bytes(bytes).map_err(|error| error.to_string())
}

fn exactly<const N: usize>(key: &[u8]) -> Result<[u8; N], String> {
    key.try_into().map_err(|_| short(key))
}

fn short(key: &[u8]) -> String {
    format!("a key has {} bytes", key.len())
}

#[expect(clippy::big_endian_bytes, reason = "keys are in the order of their numbers")]
const fn number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

#[expect(clippy::big_endian_bytes, reason = "the inverse of `number`")]
const fn numbered(key: [u8; 8]) -> u64 {
    u64::from_be_bytes(key)
}

fn name(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind], key].concat()
}
