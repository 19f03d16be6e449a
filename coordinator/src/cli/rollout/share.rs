//! Shares of the fleet and stages as people write them: `5%`, `5%:10m`, `5%:10m:20`.

use packfed_coordinator::rollout::{Stage, WHOLE};

use crate::cli::duration::Milliseconds;

/// A share in millionths of `5%`, `0.5%`, `100%`.
fn share(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("share {text:?} is no percentage; write a number above 0 and up to 100 with a %, such as 5%");
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !(whole.chars().chain(rest.chars())).all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    if rest.len() > 4 {
        return Err(format!("share {text:?} has {} decimals, allowed are 4", rest.len()));
    }
    let millionths: u64 = format!("{whole}{rest:0<4}").parse().map_err(|_| wrong())?;
    match u32::try_from(millionths) {
        Ok(share @ 1..=WHOLE) => Ok(share),
        Ok(_) | Err(_) => Err(format!("share {text:?} is out of bounds, allowed is above 0% and up to 100%")),
    }
}

/// A stage of `SHARE:SOAK` or `SHARE:SOAK:REPORTS`.
pub(super) fn stage(text: &str) -> Result<Stage, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (of, soak, reports) = match parts[..] {
        [of, soak] => (of, soak, None),
        [of, soak, reports] => (of, soak, Some(reports)),
        _ => return Err(format!("stage {text:?} is none; write SHARE:SOAK or SHARE:SOAK:REPORTS, such as 5%:10m:20")),
    };
    let in_stage = |why: String| format!("stage {text:?}: {why}");
    let reports_min = match reports.map(str::parse) {
        None => 1,
        Some(Ok(reports)) => reports,
        Some(Err(_)) => {
            return Err(in_stage(format!(
                "reports are {:?}, allowed is 0 to {}",
                reports.unwrap_or_default(),
                u32::MAX
            )));
        }
    };
    let Milliseconds(soak_ms) = soak.parse().map_err(in_stage)?;
    Ok(Stage { share: share(of).map_err(in_stage)?, soak_ms, reports_min })
}

/// A share in millionths, in per cent.
pub(in crate::cli) fn percentage(share: u32) -> String {
    let (whole, rest) = (share / 10_000, share % 10_000);
    let decimals = format!("{rest:04}");
    match decimals.trim_end_matches('0') {
        "" => format!("{whole}%"),
        decimals => format!("{whole}.{decimals}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_and_their_shares_written() {
        let of = |share, soak_ms, reports_min| Ok(Stage { share, soak_ms, reports_min });
        assert_eq!(stage("5%:10m"), of(50_000, 600_000, 1));
        assert_eq!(stage("0.5%:30s:20"), of(5_000, 30_000, 20));
        assert_eq!(stage("100%:0s:0"), of(1_000_000, 0, 0));
        for text in ["5%", "0.5%", "12.25%", "100%", "0.0001%"] {
            assert_eq!(percentage(share(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_stage_is_named_with_its_bound() {
        let error = |text: &str| stage(text).unwrap_err();
        assert_eq!(error("5%"), "stage \"5%\" is none; write SHARE:SOAK or SHARE:SOAK:REPORTS, such as 5%:10m:20");
        assert!(error("0%:1m").ends_with("share \"0%\" is out of bounds, allowed is above 0% and up to 100%"));
        assert!(error("101%:1m").ends_with("share \"101%\" is out of bounds, allowed is above 0% and up to 100%"));
        assert!(error("99999999999%:1m").contains("out of bounds"));
        assert!(error("5:1m").contains("share \"5\" is no percentage"));
        assert!(error("1.00001%:1m").contains("has 5 decimals, allowed are 4"));
        assert!(error("5%:10").starts_with("stage \"5%:10\": \"10\" is no length of time"));
        assert!(error("5%:10m:-1").ends_with("reports are \"-1\", allowed is 0 to 4294967295"));
    }
}
