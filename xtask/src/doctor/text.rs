//! Findings as a table for people.

use std::fmt::Write;

use super::{Finding, Status};

/// One block for each finding: what, how it stands and what was found; then what it means; then how to get it.
pub fn table(findings: &[Finding]) -> String {
    let width = |column: fn(&Finding) -> usize| findings.iter().map(column).max().unwrap_or(0);
    let what = width(|f| f.what.len());
    let status = width(|f| word(f.status).len());
    let means = width(|f| f.means.iter().map(|m| m.for_.len()).max().unwrap_or(0));

    let mut table = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{text}");
    };
    for finding in findings {
        let name = word(finding.status);
        line(format_args!("{:what$}  {name:status$}  {}", finding.what, finding.found));
        for meaning in &finding.means {
            line(format_args!("{:what$}    {:means$}  {}", "", meaning.for_, meaning.text));
        }
        if let Some(command) = &finding.install {
            line(format_args!("{:what$}    {:means$}  {command}", "", "install:"));
        }
    }
    if findings.iter().all(|finding| finding.status != Status::Missing) {
        line(format_args!("\nNothing that is needed today is missing."));
    }
    table
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Present => "ok",
        Status::Optional => "optional",
        Status::NotNeededYet => "not needed yet",
        Status::Missing => "MISSING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let findings = [
            Finding::new("a", Status::Present, "here").means("mk-model", "good"),
            Finding::new("bcd", Status::Missing, "gone").means("xtask", "bad").install("get it"),
        ];
        let expected = "a    ok       here\n       mk-model  good\n\
                        bcd  MISSING  gone\n       xtask     bad\n       install:  get it\n";
        assert_eq!(table(&findings), expected);
        assert!(table(&findings[..1]).ends_with("Nothing that is needed today is missing.\n"));
    }
}
