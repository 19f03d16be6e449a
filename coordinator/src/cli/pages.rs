//! Lists that a coordinator tells page by page, the latest first.

use anyhow::Result;

/// As many as are wanted, and whether there are more: `page` tells of those before a number, `number` is that of one.
pub(super) fn pages<T>(
    limit: usize,
    mut page: impl FnMut(u64) -> Result<(Vec<T>, bool)>,
    number: impl Fn(&T) -> u64,
) -> Result<(Vec<T>, bool)> {
    let (mut all, mut more) = page(u64::MAX)?;
    while let Some(last) = all.last().filter(|_| more && all.len() < limit) {
        let (next, further) = page(number(last))?;
        all.extend(next);
        more = further;
    }
    more |= all.len() > limit;
    all.truncate(limit);
    Ok((all, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_put_together_as_far_as_they_are_wanted() {
        let page = |before: u64| Ok(((1..=10).rev().filter(|n| *n < before).take(4).collect::<Vec<u64>>(), before > 5));
        let of = |limit| pages(limit, page, |n| *n).unwrap();
        assert_eq!(of(3), (vec![10, 9, 8], true));
        assert_eq!(of(4), (vec![10, 9, 8, 7], true));
        assert_eq!(of(99), ((1..=10).rev().collect(), false));
    }
}
