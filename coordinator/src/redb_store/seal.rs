//! Our own checksum of every record, over what the engine's page checksums do not cover: that these are the
//! bytes that were written *under this name*.
//!
//! ```text
//!   ┌──────────────────────────────┬───────┐
//!   │ BLAKE3(table, name, bytes)   │ bytes │
//!   └──────────────────────────────┴───────┘
//! ```
//!
//! It guards against disks and memory, not against an adversary: who can write the file can seal as well.

use packfed_protocol::Digest;

/// The seal of a record's bytes under its name in a table.
pub(super) fn seal(table: &str, name: &[u8], bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("packfed/record/1");
    for part in [table.as_bytes(), name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(bytes);
    Digest(*hasher.finalize().as_bytes())
}

/// A record with its seal before it.
pub(super) fn sealed(table: &str, name: &[u8], bytes: &[u8]) -> Vec<u8> {
    [&seal(table, name, bytes).0, bytes].concat()
}

/// The bytes of a sealed record, or what is wrong with it.
pub(super) fn opened<'a>(table: &str, name: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], String> {
    let Some((found, bytes)) = sealed.split_first_chunk() else {
        return Err(format!("it has {} bytes, a seal alone has {SEAL_BYTES}", sealed.len()));
    };
    match seal(table, name, bytes) == Digest(*found) {
        true => Ok(bytes),
        false => Err("its bytes are not those that were written".to_owned()),
    }
}

const SEAL_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_can_change_and_no_record_can_move() {
        let record = sealed("meta", b"last", b"bytes");
        assert_eq!(opened("meta", b"last", &record), Ok(b"bytes".as_slice()));
        for bit in 0..8 * record.len() {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(opened("meta", b"last", &flipped).is_err(), "bit {bit}");
        }
        assert!(opened("meta", b"open", &record).is_err() && opened("steps", b"last", &record).is_err());
        assert!(opened("met", b"alast", &record).is_err(), "names do not run into one another");
        assert_eq!(opened("meta", b"last", b"short").unwrap_err(), "it has 5 bytes, a seal alone has 32");
    }
}
