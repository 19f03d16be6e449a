//! A least-recently-used store of decoded blocks, bounded in bytes.
//!
//! Keys are the numbers `0..blocks` of a layer's blocks, so recency is a doubly linked ring over an array and
//! nothing is hashed: what is kept depends on the order of the accesses alone. It does not know how a block is
//! decoded or used.

/// What a store did since it was made, and how full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Accesses that found their block decoded.
    pub hits: u64,
    /// Accesses that had to decode it.
    pub misses: u64,
    /// Blocks that made room for others.
    pub evictions: u64,
    /// Bytes of decoded blocks that are held.
    pub bytes: usize,
}

/// The store. A buffer of one block beyond the bound is kept for reuse.
#[derive(Clone, Debug)]
pub(crate) struct Lru {
    values: Vec<Option<Vec<f32>>>,
    /// The ring: one link a key and, last, the one between the newest and the oldest.
    links: Vec<Link>,
    bytes_max: usize,
    spare: Vec<f32>,
    statistics: CacheStatistics,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: usize,
    older: usize,
}

impl Lru {
    /// An empty store for keys below `keys`.
    pub(crate) fn new(keys: usize, bytes_max: usize) -> Self {
        Self {
            values: vec![None; keys],
            links: (0..=keys).map(|key| Link { newer: key, older: key }).collect(),
            bytes_max,
            spare: Vec::new(),
            statistics: CacheStatistics::default(),
        }
    }

    pub(crate) const fn statistics(&self) -> CacheStatistics {
        self.statistics
    }

    /// The values of a key, filled in (over zeros) if they are not held; values too large for the bound are not kept.
    pub(crate) fn get_or_fill(&mut self, key: usize, length: usize, fill: impl FnOnce(&mut [f32])) -> &[f32] {
        if self.values[key].is_some() {
            self.statistics.hits += 1;
            self.unlink(key);
            self.link_newest(key);
        } else {
            self.statistics.misses += 1;
            self.fill(key, length, fill);
        }
        self.values[key].as_ref().unwrap_or(&self.spare)
    }

    fn fill(&mut self, key: usize, length: usize, fill: impl FnOnce(&mut [f32])) {
        let bytes = length * size_of::<f32>();
        let kept = bytes <= self.bytes_max;
        while kept && self.statistics.bytes > self.bytes_max - bytes {
            self.evict_oldest();
        }
        let mut values = std::mem::take(&mut self.spare);
        values.clear();
        values.resize(length, 0.0);
        fill(&mut values);
        if kept {
            values.shrink_to_fit();
            self.values[key] = Some(values);
            self.statistics.bytes += bytes;
            self.link_newest(key);
        } else {
            self.spare = values;
        }
    }

    fn evict_oldest(&mut self) {
        let oldest = self.links[self.values.len()].newer;
        let values = self.values[oldest].take().expect("what is linked is held, and bytes are held");
        self.unlink(oldest);
        self.statistics.bytes -= values.len() * size_of::<f32>();
        self.statistics.evictions += 1;
        self.spare = values;
    }

    fn unlink(&mut self, key: usize) {
        let Link { newer, older } = self.links[key];
        self.links[older].newer = newer;
        self.links[newer].older = older;
    }

    /// The ring's end is newer than the newest and older than the oldest.
    fn link_newest(&mut self, key: usize) {
        let end = self.values.len();
        let newest = self.links[end].older;
        self.links[key] = Link { newer: end, older: newest };
        self.links[newest].newer = key;
        self.links[end].older = key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Accesses key after key, each of `key % 3 + 1` floats.
    fn access(lru: &mut Lru, key: usize) {
        let values = lru.get_or_fill(key, key % 3 + 1, |values| values.fill(key as f32)).to_vec();
        assert_eq!(values, vec![key as f32; key % 3 + 1]);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut lru = Lru::new(10, 12);
        [0, 3, 6].iter().for_each(|&key| access(&mut lru, key));
        access(&mut lru, 0);
        access(&mut lru, 9);
        assert_eq!(lru.statistics(), CacheStatistics { hits: 1, misses: 4, evictions: 1, bytes: 12 });
        access(&mut lru, 3);
        assert_eq!(lru.statistics().misses, 5, "3 had to go for 9");
        access(&mut lru, 0);
        assert_eq!(lru.statistics().hits, 2, "6 had to go for 3");
    }

    #[test]
    fn what_is_larger_than_the_bound_is_not_kept_and_evicts_nothing() {
        let mut lru = Lru::new(3, 8);
        [0, 2, 0, 2].iter().for_each(|&key| access(&mut lru, key));
        assert_eq!(lru.statistics(), CacheStatistics { hits: 1, misses: 3, evictions: 0, bytes: 4 });
    }

    proptest! {
        #[test]
        fn any_accesses_agree_with_a_list(
            keys in prop::collection::vec(0..12usize, 0..200), bytes_max in 0..60usize,
        ) {
            let mut lru = Lru::new(12, bytes_max);
            let (mut list, mut hits): (Vec<usize>, u64) = (Vec::new(), 0);
            let bytes = |list: &[usize]| list.iter().map(|key| 4 * (key % 3 + 1)).sum::<usize>();
            for key in keys {
                access(&mut lru, key);
                hits += u64::from(list.contains(&key));
                list.retain(|&held| held != key);
                if bytes(&[key]) <= bytes_max {
                    list.push(key);
                    while bytes(&list) > bytes_max {
                        list.remove(0);
                    }
                }
                prop_assert_eq!(lru.statistics().hits, hits);
                prop_assert_eq!(lru.statistics().bytes, bytes(&list));
                for held in 0..12 {
                    prop_assert_eq!(lru.values[held].is_some(), list.contains(&held));
                }
            }
        }
    }
}
