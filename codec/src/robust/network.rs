//! A sorting network for any number of values: merge exchange (Batcher; Knuth, TAOCP 3, 5.2.2, algorithm M).
//!
//! Comparisons whose outcome cannot show are left out: whoever sums the middle of the sorted values does not ask
//! which of two cut-off values is the smaller, nor which of two kept ones.

/// Puts the smaller of two values first; both places, the lower one first.
pub(super) type Exchange = (usize, usize);

/// The exchanges after which places `trim..n − trim` hold the middle of `n` values, in some order, and the smallest
/// lie before and the largest behind them.
pub(super) fn middle(n: usize, trim: usize) -> Vec<Exchange> {
    let mut kinds: Vec<Kind> = (0..n)
        .map(|place| match place {
            place if place < trim => Kind::Low,
            place if place < n - trim => Kind::Middle,
            _ => Kind::High,
        })
        .collect();
    let mut exchanges = whole(n);
    // From the last exchange back: two places that are asked the same need no order; two that are not are asked
    // for this very value from here on.
    let mut needed: Vec<bool> = exchanges
        .iter()
        .rev()
        .map(|&(a, b)| {
            let differ = kinds[a] != kinds[b] || kinds[a] == Kind::Sorted;
            if differ {
                (kinds[a], kinds[b]) = (Kind::Sorted, Kind::Sorted);
            }
            differ
        })
        .collect();
    needed.reverse();
    let mut needed = needed.into_iter();
    exchanges.retain(|_| needed.next() == Some(true));
    exchanges
}

/// What the value at a place is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Low,
    Middle,
    High,
    Sorted,
}

/// The exchanges that sort `n` values.
fn whole(n: usize) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    if n < 2 {
        return exchanges;
    }
    let top = n.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            exchanges.extend((0..n - d).filter(|i| i & p == r).map(|i| (i, i + d)));
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    exchanges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(exchanges: &[Exchange], values: &mut [usize]) {
        for &(a, b) in exchanges {
            if values[a] > values[b] {
                values.swap(a, b);
            }
        }
    }

    #[test]
    fn every_pattern_of_zeros_and_ones_is_sorted_into_ends_and_middle() {
        // A network that sorts all of zeros and ones sorts everything (Knuth, 5.3.4, theorem Z).
        for n in 1..=11usize {
            for trim in 0..=(n - 1) / 2 {
                let exchanges = middle(n, trim);
                for pattern in 0..1usize << n {
                    let mut values: Vec<usize> = (0..n).map(|bit| pattern >> bit & 1).collect();
                    run(&exchanges, &mut values);
                    let ones = pattern.count_ones() as usize;
                    let sorted: Vec<usize> = (0..n).map(|place| usize::from(place >= n - ones)).collect();
                    let sums = |of: &[usize]| {
                        [&of[..trim], &of[trim..n - trim], &of[n - trim..]].map(|part| part.iter().sum::<usize>())
                    };
                    assert_eq!(sums(&values), sums(&sorted), "{n} values, {trim} trimmed, {pattern:b}");
                }
            }
        }
    }

    #[test]
    fn a_mean_needs_no_exchange_and_a_median_fewer_than_a_sort() {
        assert_eq!(middle(100, 0).len(), 0);
        let sort = whole(100).len();
        assert!(middle(100, 49).len() < sort && middle(100, 20).len() < sort);
    }
}
