//! Every rule against its definition, lane by lane; what it reads, and what liars can do to it.

use proptest::prelude::*;

use super::*;
use crate::layout::LayerSpec;
use crate::quantize::decode_words;
use crate::seed::Seed;

const SCALES: [Scales; 2] = [Scales { wave: -12, residual: -6 }, Scales { wave: -20, residual: 8 }];

/// Two layers, so that scales differ; the second has an edge block with fewer lanes than a word.
fn layout(columns: usize) -> Layout {
    let spec =
        |name: &str, rows, cols| LayerSpec { name: name.into(), rows, cols, block: 4, residual: 12, gain_exponent: 4 };
    Layout::new(&Seed::from_number(1), vec![spec("a", 4, columns), spec("b", 9, 4)]).unwrap()
}

/// Words whose every used lane is anything its field holds.
fn update(layout: &Layout, profile: Profile, seed: u64) -> Vec<Word> {
    let mut stream = Seed::from_number(seed).stream();
    let mut lanes = vec![vec![0; profile.width()]; layout.blocks()];
    let window = crate::window::Window::new(profile, 0);
    window.for_each_slot(layout, |slot| {
        let (block, lane) = (slot.index / profile.width(), slot.index % profile.width());
        let max = profile.lane_max(lane);
        lanes[block][lane] = i32::try_from(stream.index(2 * max.unsigned_abs() as usize + 2)).unwrap() - max - 1;
    });
    lanes.iter().map(|lanes| profile.pack(lanes)).collect()
}

fn updates(layout: &Layout, profile: Profile, count: usize, seed: u64) -> Vec<Vec<Word>> {
    (0..count as u64).map(|n| update(layout, profile, seed.wrapping_mul(1_000).wrapping_add(n))).collect()
}

/// The integers of an update, slot by slot.
fn decoded(layout: &Layout, profile: Profile, words: &[Word]) -> Vec<i64> {
    let mut lanes = vec![0; layout.blocks() * profile.width()];
    decode_words(layout, profile, 0, words.as_flattened(), |slot, q| lanes[slot.index] = q.into()).unwrap();
    lanes
}

/// The trimmed mean from its definition: a sum and what it counts.
fn slowly_trimmed(updates: &[Vec<i64>], shares: &[u32], trim: usize) -> Vec<i64> {
    let lane = |slot: usize| {
        let mut values: Vec<i64> = updates.iter().zip(shares).map(|(u, &share)| u[slot] * i64::from(share)).collect();
        values.sort_unstable();
        values[trim..values.len() - trim].iter().sum()
    };
    (0..updates[0].len()).map(lane).collect()
}

/// The lanes of an update in quanta.
fn in_quanta(layout: &Layout, profile: Profile, words: &[Word]) -> Vec<i128> {
    let lanes = decoded(layout, profile, words);
    let mut quanta = vec![0; lanes.len()];
    crate::window::Window::new(profile, 0).for_each_slot(layout, |slot| {
        let exponent = i32::from(SCALES[slot.layer].exponent(slot.wave)) + 20;
        quanta[slot.index] = i128::from(lanes[slot.index]) << exponent;
    });
    quanta
}

/// The squared distance from its definition, in squared quanta.
fn slowly_apart(a: &[i128], b: &[i128]) -> u128 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b).pow(2)).sum()
}

/// Krum's choice from its definition, of updates in quanta.
fn slowly_chosen(updates: &[Vec<i128>], f: usize, m: usize) -> Vec<usize> {
    let score = |i: usize| -> u128 {
        let others = (0..updates.len()).filter(|&j| j != i);
        let mut apart: Vec<u128> = others.map(|j| slowly_apart(&updates[i], &updates[j])).collect();
        apart.sort_unstable();
        apart[..updates.len() - f - 2].iter().sum()
    };
    let scores: Vec<u128> = (0..updates.len()).map(score).collect();
    let better = |i: usize| (0..updates.len()).filter(|&j| (scores[j], j) < (scores[i], i)).count();
    (0..updates.len()).filter(|&i| better(i) < m).collect()
}

fn sums(layout: &Layout, profile: Profile, tally: &Tally) -> Vec<i64> {
    (0..layout.blocks() * profile.width()).map(|slot| tally.sum(slot)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_trimmed_mean_is_the_mean_of_the_middle_of_the_sorted_lanes(
        seed: u64, count in 1..24usize, cut in 0..12usize, columns in 1..90usize, shrink: bool,
    ) {
        let (layout, trim) = (layout(columns), cut.min((count - 1) / 2));
        for profile in [Profile::Plain, Profile::Nibble] {
            let updates = updates(&layout, profile, count, seed);
            let mut stream = Seed::from_number(seed).derive("test/shares", &[]).stream();
            let share = |_| if shrink { u32::try_from(stream.index(WHOLE as usize + 1)).unwrap() } else { WHOLE };
            let shares: Vec<u32> = (0..count).map(share).collect();
            let rule = Robust::new(&layout, profile).shrunk(&shares);
            let found = rule.trimmed_mean(&mut &updates[..], trim).unwrap();
            let slow: Vec<Vec<i64>> = updates.iter().map(|words| decoded(&layout, profile, words)).collect();
            let (slow, kept) = (slowly_trimmed(&slow, &shares, trim), (count - 2 * trim) as f64);
            for (slot, sum) in slow.into_iter().enumerate() {
                prop_assert_eq!(found.mean(slot), sum as f64 / f64::from(WHOLE) / kept);
            }
        }
    }

    #[test]
    fn a_median_is_the_middle_value(seed: u64, count in 1..20usize) {
        let layout = layout(20);
        let updates = updates(&layout, Profile::Plain, count, seed);
        let found = Robust::new(&layout, Profile::Plain).median(&mut &updates[..]).unwrap();
        let slow: Vec<Vec<i64>> = updates.iter().map(|words| decoded(&layout, Profile::Plain, words)).collect();
        for slot in 0..slow[0].len() {
            let mut values: Vec<i64> = slow.iter().map(|lanes| lanes[slot]).collect();
            values.sort_unstable();
            prop_assert_eq!(found.mean(slot), (values[(count - 1) / 2] + values[count / 2]) as f64 / 2.0);
        }
    }

    #[test]
    fn distances_and_krum_are_what_they_are_defined_to_be(seed: u64, count in 3..14usize, columns in 1..700usize) {
        let layout = layout(columns);
        for profile in [Profile::Plain, Profile::Nibble] {
            let updates = updates(&layout, profile, count, seed);
            let rule = Robust::new(&layout, profile);
            let distances = rule.distances(&mut &updates[..], &SCALES).unwrap();
            let slow: Vec<Vec<i128>> = updates.iter().map(|words| in_quanta(&layout, profile, words)).collect();
            for a in 0..count {
                for b in 0..count {
                    prop_assert_eq!(distances.squared(a, b), slowly_apart(&slow[a], &slow[b]));
                }
            }
            let f = (count - 3) / 2;
            for m in [1, count - f] {
                let (tally, chosen) = rule.multi_krum(&mut &updates[..], &SCALES, f, m).unwrap();
                prop_assert_eq!(&chosen, &slowly_chosen(&slow, f, m));
                let mut mean = Tally::new(&layout, profile);
                chosen.iter().for_each(|&n| mean.add(updates[n].as_flattened(), 1).unwrap());
                prop_assert_eq!(sums(&layout, profile, &tally), sums(&layout, profile, &mean));
                prop_assert_eq!(tally.weight(), m as u64);
            }
        }
    }

    #[test]
    fn the_order_of_updates_has_no_say(seed: u64, count in 3..14usize) {
        let layout = layout(50);
        let updates = updates(&layout, Profile::Plain, count, seed);
        let mut order: Vec<usize> = (0..count).collect();
        let mut stream = Seed::from_number(seed).derive("test/order", &[]).stream();
        (1..count).rev().for_each(|n| order.swap(n, stream.index(n + 1)));
        let shuffled: Vec<Vec<Word>> = order.iter().map(|&n| updates[n].clone()).collect();
        let rule = Robust::new(&layout, Profile::Plain);
        for trim in 0..=(count - 1) / 2 {
            let [a, b] = [&updates, &shuffled].map(|updates| rule.trimmed_mean(&mut &updates[..], trim).unwrap());
            prop_assert_eq!(a, b);
        }
        let f = (count - 3) / 2;
        let [(a, chosen), (b, shuffled)] =
            [&updates, &shuffled].map(|updates| rule.multi_krum(&mut &updates[..], &SCALES, f, count - f).unwrap());
        prop_assert_eq!(a, b);
        let mut shuffled: Vec<usize> = shuffled.into_iter().map(|n| order[n]).collect();
        shuffled.sort_unstable();
        prop_assert_eq!(chosen, shuffled);
    }

    #[test]
    fn no_lane_leaves_the_honest_range_while_liars_are_no_more_than_trimmed(
        seed: u64, honest in 2..12usize, liars in 1..6usize, lies in prop::collection::vec(any::<i8>(), 6),
    ) {
        let (layout, liars) = (layout(30), liars.min(honest - 1));
        let mut updates = updates(&layout, Profile::Plain, honest, seed);
        let range: Vec<(i64, i64)> = {
            let lanes: Vec<Vec<i64>> = updates.iter().map(|words| decoded(&layout, Profile::Plain, words)).collect();
            let of = |slot: usize| lanes.iter().map(move |lanes| lanes[slot]);
            (0..lanes[0].len()).map(|slot| (of(slot).min().unwrap(), of(slot).max().unwrap())).collect()
        };
        updates.extend(lies[..liars].iter().map(|lie| vec![[lie.cast_unsigned(); WORD_BYTES]; layout.blocks()]));
        let rule = Robust::new(&layout, Profile::Plain);
        let found = rule.trimmed_mean(&mut &updates[..], liars).unwrap();
        crate::window::Window::new(Profile::Plain, 0).for_each_slot(&layout, |slot| {
            let (least, most) = range[slot.index];
            assert!((least as f64..=most as f64).contains(&found.mean(slot.index)));
        });
    }

    #[test]
    fn an_extent_is_exact_and_its_share_holds_the_norm(seed: u64, columns in 1..60usize, norm in 1e-3..1e3f64) {
        let layout = layout(columns);
        for profile in [Profile::Plain, Profile::Nibble] {
            let words = update(&layout, profile, seed);
            let extent = Extent::of(&layout, profile, &SCALES, words.as_flattened()).unwrap();
            let square: u128 = in_quanta(&layout, profile, &words).iter().map(|q| q.unsigned_abs().pow(2)).sum();
            prop_assert_eq!(extent.norm(), (square as f64).sqrt() / 2f64.powi(20));
            let mut tally = Tally::new(&layout, profile);
            tally.add(words.as_flattened(), 1).unwrap();
            prop_assert_eq!(extent.peaks(), tally.peaks());
            let share = extent.share(norm);
            let shrunk = |share: u32| extent.norm() * f64::from(share) / f64::from(WHOLE);
            prop_assert!(shrunk(share) <= norm * (1.0 + 1e-12));
            prop_assert!(share == WHOLE || shrunk(share + 1) > norm * (1.0 - 1e-12));
        }
    }
}

#[test]
fn of_equal_scores_the_smaller_number_is_chosen() {
    let layout = layout(8);
    let same = vec![update(&layout, Profile::Plain, 3); 5];
    let (_, chosen) = Robust::new(&layout, Profile::Plain).multi_krum(&mut &same[..], &SCALES, 1, 2).unwrap();
    assert_eq!(chosen, [0, 1]);
}

#[test]
fn the_largest_distance_fits() {
    let layout = layout(8);
    let ends: Vec<Vec<Word>> = [-1, 1]
        .map(|sign: i32| {
            let lanes = |used: usize| (0..used).map(|lane| sign * Profile::Plain.lane_max(lane) - i32::from(sign < 0));
            let used = |slot: &crate::window::BlockSlots<'_>| slot.slots().count();
            let blocks = crate::window::Window::new(Profile::Plain, 0);
            blocks.blocks(&layout).map(|block| Profile::Plain.pack(&lanes(used(&block)).collect::<Vec<_>>())).collect()
        })
        .into();
    let rule = Robust::new(&layout, Profile::Plain);
    let distances = rule.distances(&mut &ends[..], &SCALES).unwrap();
    let [low, high] = [0, 1].map(|n: usize| in_quanta(&layout, Profile::Plain, &ends[n]));
    assert_eq!(distances.squared(1, 0), slowly_apart(&low, &high));
    let largest = (u128::from(u16::MAX).pow(2) << 56).checked_mul(1 << 30);
    assert!(largest.and_then(|largest| largest.checked_mul(UPDATES_MAX as u128)).is_some(), "a score of as many");
}

/// Counts what is read and holds readers to their order.
struct Counting<'a> {
    updates: &'a [Vec<Word>],
    next: Vec<usize>,
    largest: usize,
    at_once: usize,
    tile: (usize, usize),
}

impl WordSource for Counting<'_> {
    type Error = &'static str;

    fn updates(&self) -> usize {
        self.updates.len()
    }

    fn read(&mut self, update: usize, first: usize, words: &mut [Word]) -> Result<(), &'static str> {
        if first == 0 && self.next[update] == self.updates[update].len() {
            self.next[update] = 0;
        }
        assert_eq!(first, self.next[update], "in order, without a gap");
        self.next[update] += words.len();
        self.tile = if self.tile.0 == first { (first, self.tile.1 + words.len()) } else { (first, words.len()) };
        self.at_once = self.at_once.max(self.tile.1);
        self.largest = self.largest.max(words.len());
        words.copy_from_slice(&self.updates[update][first..first + words.len()]);
        Ok(())
    }
}

#[test]
fn what_is_held_of_all_updates_is_one_tile() {
    let layout = layout(4 * 5_000);
    let one = update(&layout, Profile::Plain, 5);
    for (count, largest) in [(5, TILE_BLOCKS_MAX), (300, TILE_BYTES_MAX / WORD_BYTES / 300)] {
        let updates = vec![one.clone(); count];
        let mut source =
            Counting { updates: &updates, next: vec![0; count], largest: 0, at_once: 0, tile: (usize::MAX, 0) };
        let tally = Robust::new(&layout, Profile::Plain).median(&mut source).unwrap();
        assert_eq!(source.largest, largest);
        assert!(source.at_once * WORD_BYTES <= TILE_BYTES_MAX, "{} blocks at once", source.at_once);
        assert!(source.next.iter().all(|&next| next == layout.blocks()), "each was read to its end");
        let slow = decoded(&layout, Profile::Plain, &one);
        assert!((0..slow.len()).all(|slot| tally.mean(slot) == slow[slot] as f64), "tiles are put together");
    }
    let updates = vec![one; 5];
    let mut source = Counting { updates: &updates, next: vec![0; 5], largest: 0, at_once: 0, tile: (usize::MAX, 0) };
    Robust::new(&layout, Profile::Plain).multi_krum(&mut source, &SCALES, 1, 3).unwrap();
    assert_eq!((source.largest, source.at_once), (TILE_BLOCKS_MAX, 5 * TILE_BLOCKS_MAX));
}

#[test]
fn what_cannot_be_is_an_error_with_its_numbers() {
    let layout = layout(8);
    let four = updates(&layout, Profile::Plain, 4, 1);
    let rule = Robust::new(&layout, Profile::Plain);
    let error = rule.multi_krum(&mut &four[..], &SCALES, 1, 2).unwrap_err();
    assert_eq!(error.to_string(), "4 updates, the rule takes 5 to 1024");
    let bounds = |min| RobustError::Updates { updates: 4, min, max: UPDATES_MAX };
    assert_eq!(rule.trimmed_mean(&mut &four[..], 2), Err(bounds(5)));
    assert_eq!(rule.multi_krum(&mut &four[..], &SCALES, 0, 5), Err(bounds(5)));
    let none = Robust::new(&layout, Profile::Plain).median(&mut &four[..0]);
    assert_eq!(none, Err(RobustError::Updates { updates: 0, min: 1, max: UPDATES_MAX }));
    let shares = [1, WHOLE];
    assert_eq!(rule.shrunk(&shares).median(&mut &four[..]), Err(RobustError::Shares { found: 2, updates: 4 }));
    assert!(matches!(rule.distances(&mut &four[..], &SCALES[..1]), Err(RobustError::Scales(_))));
}
