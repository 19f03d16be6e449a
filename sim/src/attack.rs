//! Workers that lie: what a malicious worker makes of its update between its session and the network.
//!
//! It trains as told, holds a valid key, signs what it sends and keeps every rule that a coordinator can check of one
//! update alone. What it changes are the words and what the header claims of them.

use packfed_codec::{Seed, WORD_BYTES, Window};
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Identity, LaneClips, Signed};

/// What a malicious worker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// The opposite of what it has learned.
    SignFlip,
    /// A hundred times what it has learned, as far as words can carry it; its clip counts say so.
    Scale,
    /// The same, and it claims as many examples as the plan allows.
    Inflate,
    /// Words of independent random lanes over their whole range.
    Random,
}

/// What a scaled update is multiplied by.
const SCALE: i32 = 100;

impl Attack {
    /// Every attack.
    pub const ALL: [Self; 4] = [Self::SignFlip, Self::Scale, Self::Inflate, Self::Random];

    /// Its name in flags and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SignFlip => "sign-flip",
            Self::Scale => "scale",
            Self::Inflate => "inflate",
            Self::Random => "random",
        }
    }

    /// The update that is sent in place of an honest one, signed anew.
    #[must_use]
    pub fn tampered(self, honest: &Signed, identity: &Identity, plan: &RunPlan) -> Signed {
        let mut header = honest.header.clone();
        let profile = plan.raw().profile;
        let seed = plan.raw().seed.derive("packfed/attack/1", &[header.round.0]);
        let seed = seed.derive_for_key("packfed/worker/1", &header.worker.0);
        let mut stream = seed.stream();
        let words = match self {
            Self::SignFlip => changed(&honest.payload, plan, |lane, q| (-q).min(profile.lane_max(lane))).0,
            Self::Scale | Self::Inflate => {
                let (words, clipped) = changed(&honest.payload, plan, |lane, q| {
                    let max = profile.lane_max(lane);
                    (q * SCALE).clamp(-max, max)
                });
                header.clipped = clipped;
                words
            }
            Self::Random => {
                let value = |lane, _| {
                    let max = profile.lane_max(lane);
                    i32::try_from(stream.below(2 * u64::from(max.unsigned_abs()) + 1)).unwrap_or(max) - max
                };
                changed(&honest.payload, plan, value).0
            }
        };
        if self == Self::Inflate {
            header.examples = plan.raw().examples_max;
        }
        Signed::new(identity, header, words)
    }
}

/// Words with every used lane replaced, and how many lanes of each layer stand at an end of their range. `value` gets the
/// lane of the word and what it holds.
fn changed(words: &[u8], plan: &RunPlan, mut value: impl FnMut(usize, i32) -> i32) -> (Vec<u8>, Vec<LaneClips>) {
    let (layout, profile) = (plan.layout(), plan.raw().profile);
    let mut clipped = vec![LaneClips::default(); layout.layers().len()];
    let width = profile.width();
    let mut lanes = vec![0; layout.blocks() * width];
    for (word, lanes) in words.as_chunks::<WORD_BYTES>().0.iter().zip(lanes.chunks_exact_mut(width)) {
        profile.unpack(word, lanes);
    }
    Window::new(profile, 0).for_each_slot(layout, |slot| {
        let (lane, clips) = (slot.index % width, &mut clipped[slot.layer]);
        let q = &mut lanes[slot.index];
        *q = value(lane, *q);
        let full = u32::from(q.abs() == profile.lane_max(lane));
        let count = if slot.wave { &mut clips.wave } else { &mut clips.residual };
        *count += full;
    });
    (lanes.chunks_exact(width).flat_map(|lanes| profile.pack(lanes)).collect(), clipped)
}

/// Some workers of a fleet, and what they do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Malice {
    /// What they send.
    pub attack: Attack,
    /// Their share of the fleet.
    pub share: f64,
}

impl Malice {
    /// Which of `workers` are malicious: as many as the share comes to, drawn by the run's seed.
    #[must_use]
    pub fn drawn(&self, workers: usize, seed: &Seed) -> Vec<bool> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of workers")]
        let count = (self.share * workers as f64).round() as usize;
        let mut numbers: Vec<usize> = (0..workers).collect();
        let mut stream = seed.derive("packfed/malicious/1", &[]).stream();
        (1..workers).rev().for_each(|n| numbers.swap(n, stream.index(n + 1)));
        let mut drawn = vec![false; workers];
        numbers.into_iter().take(count).for_each(|n| drawn[n] = true);
        drawn
    }
}

#[cfg(test)]
mod tests {
    use packfed_codec::decode_words;
    use packfed_coordinator::config::{
        AggregationTable, LayerTable, ProfileName, ReportingTable, RunConfig, RunTable, SelectionTable, TrainingTable,
    };
    use packfed_coordinator::optimizer::ServerOptimizer;
    use packfed_coordinator::pace::Pace;
    use packfed_coordinator::strikes::Strikes;
    use packfed_protocol::{Digest, Round, UpdateHeader, Version};

    use super::*;

    /// One layer whose last blocks have fewer lanes than a word.
    fn plan(profile: ProfileName) -> RunPlan {
        let phase = (3, 3, 1_000);
        let layer = LayerTable {
            name: "w".into(),
            rows: 9,
            cols: 8,
            block: 4,
            residual: 16,
            gain_exponent: 6,
            rate_exponent: 0,
        };
        let run = RunTable {
            name: "attack".into(),
            seed: 1,
            base: Digest([0; 32]),
            rounds: 1,
            examples_max: 500,
            profile,
            levels: 1.0,
            history: 1,
        };
        let config = RunConfig {
            run,
            layers: vec![layer],
            training: TrainingTable::adam(1, 1, 0.1),
            selection: SelectionTable::of(phase.0, phase.1, phase.2),
            pace: Pace::DEFAULT,
            strikes: Strikes::DEFAULT,
            reporting: ReportingTable { goal: phase.0, min: phase.1, timeout_ms: phase.2, over_selection: 0 },
            buffered: None,
            aggregation: AggregationTable::default(),
            server_optimizer: ServerOptimizer::FedAvg { rate: 1.0 },
        };
        config.plan().unwrap()
    }

    fn honest(identity: &Identity, plan: &RunPlan) -> Signed {
        let (words, _) =
            changed(&vec![0; plan.layout().blocks() * WORD_BYTES], plan, |lane, _| if lane % 3 == 0 { 1 } else { -2 });
        let header = UpdateHeader {
            worker: identity.id(),
            run: plan.raw().run,
            round: Round(1),
            base: Version(0),
            layout: plan.layout_digest(),
            examples: 7,
            train_loss: 0.5,
            clipped: vec![LaneClips::default()],
            words: u32::try_from(words.len() / WORD_BYTES).unwrap(),
            payload: Digest([0; 32]),
        };
        Signed::new(identity, header, words)
    }

    fn lanes(update: &Signed, plan: &RunPlan) -> Vec<(bool, i32)> {
        let mut lanes = Vec::new();
        let take = |slot: packfed_codec::Slot, q| lanes.push((slot.wave, q));
        decode_words(plan.layout(), plan.raw().profile, 0, &update.payload, take).expect("words of this layout");
        lanes
    }

    #[test]
    fn what_is_sent_is_a_valid_update_that_differs_as_the_attack_says() {
        let identity = Identity::from_seed([7; 32]);
        for profile in [ProfileName::Plain, ProfileName::Nibble] {
            let plan = plan(profile);
            let honest = honest(&identity, &plan);
            let max = |wave: bool| plan.raw().profile.lane_max(if wave { 0 } else { packfed_codec::WAVE_LANES });
            let scaled = |&(wave, q): &(bool, i32)| (wave, (100 * q).clamp(-max(wave), max(wave)));
            for attack in Attack::ALL {
                let sent = attack.tampered(&honest, &identity, &plan);
                assert!(sent.clone().verify(&identity.id()).is_ok(), "signed anew");
                let (before, after) = (lanes(&honest, &plan), lanes(&sent, &plan));
                match attack {
                    Attack::SignFlip => assert!(before.iter().zip(&after).all(|(a, b)| a.1 == -b.1)),
                    Attack::Scale | Attack::Inflate => {
                        assert_eq!(after, before.iter().map(scaled).collect::<Vec<_>>());
                    }
                    Attack::Random => {
                        assert!(after.iter().any(|lane| lane.1 > 3) && after.iter().any(|lane| lane.1 < -3));
                    }
                }
                assert_eq!(sent.header.examples, if attack == Attack::Inflate { 500 } else { 7 });
                let clips = sent.header.clipped[0];
                assert_eq!(clips.residual > 0, matches!(attack, Attack::Scale | Attack::Inflate), "{attack:?}");
            }
        }
    }

    #[test]
    fn as_many_lie_as_the_share_says_and_the_seed_says_who() {
        let drawn = |share, seed| Malice { attack: Attack::Random, share }.drawn(50, &Seed::from_number(seed));
        assert_eq!(drawn(0.2, 1).iter().filter(|&&lies| lies).count(), 10);
        assert_eq!(drawn(0.2, 1), drawn(0.2, 1));
        assert_ne!(drawn(0.2, 1), drawn(0.2, 2));
        assert!(drawn(1.0, 1).iter().all(|&lies| lies));
    }
}
