//! The results as files that outlive the terminal: a page to look at and a table to compute with.
//!
//! Knows where the files go and that they appear whole or not at all. It knows nothing of how a run is made, and asks
//! for nothing but `Results`.

mod axis;
mod marker;
mod page;
mod plot;
#[cfg(test)]
pub(crate) mod sample;
mod scale;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::results::{MethodResult, Point, Results, Score};

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A plot could not be drawn.
    #[error("cannot draw a plot: {0}")]
    Draw(String),
    /// The folder could not be made.
    #[error("cannot create the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Name of the page.
const PAGE: &str = "report.html";
/// Name of the table.
const TABLE: &str = "results.csv";
/// First line of the table.
const CSV_HEADER: &str = "method,learning_rate,round,accuracy,loss,bytes_up,bytes_down,virtual_s\n";

/// Writes `report.html` and `results.csv` into a folder, which is made if need be. A reader finds the former file or
/// the new one, never a part.
///
/// # Errors
/// If a plot cannot be drawn, or the folder or a file cannot be written.
pub fn write(results: &Results, folder: &Path) -> Result<(), ReportError> {
    let page = html(results)?;
    fs::create_dir_all(folder).map_err(|source| ReportError::Folder { path: folder.to_owned(), source })?;
    write_whole(&folder.join(PAGE), &page)?;
    write_whole(&folder.join(TABLE), &csv(results))
}

/// One HTML page with table, plots and learning rates; it refers to nothing outside itself.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn html(results: &Results) -> Result<String, ReportError> {
    page::html(results).map_err(|error| ReportError::Draw(error.to_string()))
}

/// Every point of every curve as comma-separated values (RFC 4180, with line feeds): bytes of all workers so far,
/// virtual time in seconds.
#[must_use]
pub fn csv(results: &Results) -> String {
    let rows = results.methods.iter().flat_map(|method| method.curve.iter().map(|point| csv_row(method, point)));
    std::iter::once(CSV_HEADER.to_owned()).chain(rows).collect()
}

fn csv_row(method: &MethodResult, point: &Point) -> String {
    let name = quoted(&method.name);
    let Point { round, score: Score { accuracy, loss }, bytes_up, bytes_down, virtual_s } = point;
    format!("{name},{},{round},{accuracy},{loss},{bytes_up},{bytes_down},{virtual_s}\n", method.learning_rate)
}

/// A field, in quotes where it needs them.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// Writes a temporary file beside the file, then puts it in its place.
fn write_whole(path: &Path, content: &str) -> Result<(), ReportError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    fill(&temporary, content).and_then(|()| fs::rename(&temporary, path)).map_err(|source| {
        // What went wrong first is what is told; a left-over that cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
        ReportError::File { path: path.to_owned(), source }
    })
}

fn fill(path: &Path, content: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn hostile() -> Results {
        let mut results = sample::results();
        results.task = "<script>alert('task')</script>".to_owned();
        results.methods[0].name = "\"><script>a, b</script>&".to_owned();
        results.methods[0].tuning = results.methods[1].tuning.clone();
        results
    }

    #[test]
    fn the_page_has_both_plots_and_both_tables() {
        let page = html(&sample::results()).unwrap();
        assert_eq!(page.matches("role=\"img\" aria-label=\"Line chart").count(), 2);
        assert_eq!(page.matches("<table>").count(), 2);
        assert!(page.contains("<th scope=\"row\">packfed</th><td>0.8412</td><td>26,816</td>"));
        assert!(page.contains("<td>0.001</td><td>0.8430</td><td>used</td>"));
        assert!(page.contains("<title>packfed: digits, seed 7</title>"));
    }

    #[test]
    fn the_page_refers_to_nothing_outside() {
        let page = html(&sample::results()).unwrap().replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for reference in ["http", "src=", "href=", "url(", "@import", "<script", "//"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn names_of_the_run_are_escaped() {
        let page = html(&hostile()).unwrap();
        assert!(!page.contains("<script"));
        assert!(!page.contains("\"\">"));
        assert!(page.contains("<h1>packfed: &lt;script&gt;alert(&#39;task&#39;)&lt;/script&gt;, seed 7</h1>"));
        assert!(page.contains("<th scope=\"row\">&quot;&gt;&lt;script&gt;a, b&lt;/script&gt;&amp;</th>"));
    }

    #[test]
    fn a_run_without_curves_says_no_data() {
        let mut results = sample::results();
        results.methods.iter_mut().for_each(|method| method.curve.clear());
        let page = html(&results).unwrap();
        assert_eq!(page.matches("<p>no data</p>").count(), 2);
        assert_eq!(csv(&results), CSV_HEADER);
    }

    #[test]
    fn a_run_without_methods_is_a_page() {
        let results = Results {
            task: String::new(),
            seed: 0,
            metric: crate::results::Metric::Accuracy,
            methods: Vec::new(),
            personal: None,
        };
        let page = html(&results).unwrap();
        assert!(page.contains("no data") && page.contains("No learning rate was searched."));
    }

    #[test]
    fn a_csv_row_stands_for_a_point() {
        let text = csv(&sample::results());
        assert_eq!(text.lines().count(), 1 + 3 * 61);
        let lines: Vec<_> = text.lines().take(2).collect();
        assert_eq!(lines, [CSV_HEADER.trim_end(), "packfed,0.001,0,0.09999999999999998,2,0,0,0"]);
        assert!(text.lines().all(|line| line.split(',').count() == 8));
    }

    #[test]
    fn a_csv_field_with_a_comma_is_quoted() {
        let text = csv(&hostile());
        assert!(text.contains("\n\"\"\"><script>a, b</script>&\",0.001,0,"), "{}", &text[..200]);
        assert_eq!(quoted("two\nlines"), "\"two\nlines\"");
        assert_eq!(quoted("lora-r4"), "lora-r4");
    }

    #[test]
    fn writing_makes_the_folder_and_leaves_two_files() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a/b");
        for _ in 0..2 {
            write(&sample::results(), &folder).unwrap();
        }
        assert_eq!(file_names(&folder), [PAGE, TABLE]);
        assert_eq!(fs::read_to_string(folder.join(TABLE)).unwrap(), csv(&sample::results()));
    }

    #[test]
    fn a_failed_write_names_the_path_and_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join(PAGE)).unwrap();
        let error = write(&sample::results(), temporary.path()).unwrap_err();
        assert!(error.to_string().ends_with(PAGE), "{error}");
        assert_eq!(file_names(temporary.path()), [PAGE]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let error = write(&sample::results(), &file.join("folder")).unwrap_err();
        assert!(error.to_string().contains("file/folder"), "{error}");
    }
}
