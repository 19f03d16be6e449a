//! How the scales of the way up follow what is clipped and how much of the range is used.

use packfed_protocol::{LaneClips, LaneScales};

use super::fleet::Fleet;
use crate::scaling::corrected;

/// Words of the first of the two layers, in bytes.
const FIRST_LAYER: usize = 4 * 16;

/// By how much round 2 changes the exponents of round 1, wave then residual of both layers, after three
/// updates that claim these clips and are changed like this.
fn change(clips: [LaneClips; 2], change: fn(&mut [u8])) -> [[i8; 2]; 2] {
    let mut fleet = Fleet::of(3, |_| {});
    fleet.check_in_all(0..3);
    let before = fleet.disk.stored.scales.clone();
    for i in 0..3 {
        let update = fleet.mangled(i, |header, payload| {
            header.clipped = clips.to_vec();
            change(payload);
        });
        fleet.send(update);
    }
    fleet.check_in_all(0..3);
    let open = &fleet.disk.stored.open[0].0;
    assert_eq!(fleet.workers[0].assignment.as_ref().unwrap().scales, open.scales, "workers are told");
    let layer = |n: usize| [open.scales[n].wave - before[n].wave, open.scales[n].residual - before[n].residual];
    [layer(0), layer(1)]
}

const NONE: LaneClips = LaneClips { wave: 0, residual: 0 };

/// Three quarters of the range in one lane of either kind, in every word.
fn loud(payload: &mut [u8]) {
    for word in payload.chunks_mut(16) {
        (word[1], word[4]) = (0x60, 96);
    }
}

#[test]
fn much_clipping_doubles_a_scale_each_for_itself() {
    let (wave, residual) = (LaneClips { wave: 2, residual: 0 }, LaneClips { wave: 0, residual: 5 });
    assert_eq!(change([NONE, NONE], loud), [[0, 0], [0, 0]]);
    assert_eq!(change([wave, residual], loud), [[1, 0], [0, 1]]);
}

#[test]
fn a_range_that_nobody_uses_is_halved_each_for_itself() {
    let quiet_layer = |payload: &mut [u8]| {
        loud(payload);
        payload[FIRST_LAYER..].fill(0);
    };
    assert_eq!(change([NONE, NONE], quiet_layer), [[0, 0], [-1, -1]]);
    let quiet_waves = |payload: &mut [u8]| {
        loud(payload);
        payload.chunks_mut(16).for_each(|word| word[..4].fill(0));
    };
    assert_eq!(change([NONE, NONE], quiet_waves), [[-1, 0], [-1, 0]]);
}

#[test]
fn little_clipping_leaves_a_scale_alone() {
    let scales = [LaneScales { wave: 0, residual: 0 }];
    let cases = [(0.0, 1.0, 0), (0.0, 0.38, 0), (0.0, 0.37, -1), (0.0099, 1.0, 0), (0.0101, 1.0, 1), (1.0, 1.0, 1)];
    for (clipped, used, change) in cases {
        let corrected = corrected(&scales, &[[clipped, 0.001]], &[[used, 0.5]]);
        assert_eq!(corrected, [LaneScales { wave: change, residual: 0 }], "{clipped} clipped, {used} used");
    }
}

#[test]
fn scales_stay_within_what_the_state_can_add() {
    let scales = [LaneScales { wave: 8, residual: -20 }];
    assert_eq!(corrected(&scales, &[[1.0, 0.0]], &[[1.0, 0.0]]), scales);
}
