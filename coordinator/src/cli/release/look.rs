//! What is said of releases.

use std::process::ExitCode;

use anyhow::{Result, bail};
use packfed_coordinator::picture::Release;
use packfed_coordinator::release::{Difference, Shelf};
use packfed_coordinator::view::Releases;
use packfed_protocol::Order;
use serde_json::{Value, json};

use super::Place;
use crate::cli::operator::Operator;
use crate::cli::output::{ago, facts, or_dash, print, short, table};

/// All releases, the oldest first: of the shelf where it is here, otherwise as the coordinator tells.
pub(super) fn list(operator: &Operator, json: bool) -> Result<()> {
    let releases = match operator.is_local() {
        true => shelved(&Place::of(operator, "release list")?)?,
        false => told(operator)?,
    };
    crate::cli::output::show(json, &releases, || {
        let mut table = table(&["release", "version", "made", "bytes", "digest", "notes"]);
        for Release { number, version, created_ms, bytes, digest, notes, .. } in &releases {
            let notes = notes.lines().next().unwrap_or_default();
            let (made, digest) = (ago(*created_ms), short(digest));
            table.add_row([&number.to_string(), &version.to_string(), &made, &bytes.to_string(), &digest, notes]);
        }
        table.trim_fmt()
    })
}

fn shelved(place: &Place) -> Result<Vec<Release>> {
    let there = place.shelf.numbers()?.into_iter().filter(|(_, there)| *there);
    there.map(|(number, _)| Ok(Release::of(&place.shelf.manifest(number, &place.key)?))).collect()
}

fn told(operator: &Operator) -> Result<Vec<Release>> {
    let Some(Releases { mut releases }) = operator.tell(Order::Releases)? else {
        bail!("no coordinator answers at {}; is it serving there, and is the port open for UDP?", operator.address)
    };
    releases.reverse();
    Ok(releases)
}

pub(super) fn show(place: &Place, number: u64, json: bool) -> Result<()> {
    let manifest = place.shelf.manifest(number, &place.key)?;
    let digest = manifest.digest();
    let mut value = serde_json::to_value(&manifest)?;
    value["digest"] = json!(digest);
    crate::cli::output::show(json, &value, || {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let rows = value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), text(value)));
        facts(&rows.collect::<Vec<_>>())
    })
}

pub(super) fn diff(place: &Place, from: u64, to: u64, json: bool) -> Result<()> {
    let found = Difference::of(&place.read(from)?, &place.read(to)?);
    crate::cli::output::show(json, &found, || {
        let mut table = table(&["layer", "lanes", "changed", "norm before", "norm after", "distance"]);
        for layer in found.layers.iter().flatten() {
            let [before, after, between] = layer.norms.map(|norm| format!("{norm:.4}"));
            let (lanes, changed) = (layer.lanes.to_string(), layer.changed.to_string());
            table.add_row([&layer.name, &lanes, &changed, &before, &after, &between]);
        }
        let shipped = match found.delta_bytes {
            Some(delta) => format!("a worker on {from} needs {delta} bytes, one on the base {}", found.whole_bytes),
            None => format!("the layouts differ: every worker needs {} bytes", found.whole_bytes),
        };
        let figures = found.metrics.iter();
        let figures = figures.map(|(name, [a, b])| format!("{name}: {} before, {} after", or_dash(*a), or_dash(*b)));
        std::iter::once(table.trim_fmt()).chain([shipped]).chain(figures).collect::<Vec<_>>().join("\n")
    })
}

pub(super) fn verify(place: &Place, number: Option<u64>, json: bool) -> Result<ExitCode> {
    let numbers = number.map_or_else(|| there(&place.shelf), |number| Ok(vec![number]))?;
    let (mut wrong, mut verified) = (Vec::new(), Vec::new());
    for number in numbers {
        match place.shelf.read(number, &place.key) {
            Ok(_) => verified.push(number),
            Err(error) => wrong.push((number, error.to_string())),
        }
    }
    if json {
        let wrong: Vec<Value> = wrong.iter().map(|(number, why)| json!({ "number": number, "why": why })).collect();
        print(&json!({ "verified": verified, "wrong": wrong }).to_string())?;
    } else {
        print(&format!("{} releases are whole and signed by {}", verified.len(), place.key))?;
        wrong.iter().for_each(|(_, why)| eprintln!("{why}"));
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn there(shelf: &Shelf) -> Result<Vec<u64>> {
    Ok(shelf.numbers()?.into_iter().filter_map(|(number, there)| there.then_some(number)).collect())
}
